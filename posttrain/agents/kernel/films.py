"""Films from files: videos (by PyAV, the extra `video`), GIFs, and folders of pictures, cut into clips of bytes."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, ImageSequence, UnidentifiedImageError
from torch import Tensor

VIDEOS = (".mp4", ".mkv", ".webm", ".avi", ".mov")
MOVING = (".gif", ".webp", ".apng")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp")


def read_clips(folder: Path, frames: int, height: int, width: int, every: int = 1) -> Tensor:
    """Clips of the films in a folder, in the order of their names, one behind the other without overlap, [N, frames, 3, H, W] bytes.

    Raises `ValueError` naming what is no film, cannot be read, or is too short for a clip; `ImportError` where PyAV is missing.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    films = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    if not films:
        raise ValueError(f"{folder}: is empty, expected videos, GIFs or folders of pictures")
    return torch.cat([_cut(path, frames, height, width, every) for path in films])


def read_picture(path: Path, height: int, width: int) -> Tensor:
    """A picture of just this size, [3, H, W] from 0 to 1; raises `ValueError` where it is another, or none."""
    picture = next(_pictures(path))
    if picture.size != (width, height):
        raise ValueError(f"{path}: found {picture.width} x {picture.height} pixels, expected {width} x {height}")
    return _bytes(picture).float() / 255


def write_picture(path: Path, picture_CHW: Tensor) -> None:
    """Bytes [3, H, W] as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    to_image(picture_CHW).save(path)


def to_image(picture_CHW: Tensor, scale: int = 1) -> Image.Image:
    """Bytes [3, H, W] as an image, each pixel a square of `scale`."""
    image = Image.fromarray(picture_CHW.permute(1, 2, 0).cpu().numpy())
    return image.resize((scale * image.width, scale * image.height), Image.Resampling.NEAREST)


def _cut(path: Path, frames: int, height: int, width: int, every: int) -> Tensor:
    kept = []
    for i, picture in enumerate(_pictures(path)):
        if i % every == 0:
            kept.append(_bytes(ImageOps.fit(picture, (width, height), Image.Resampling.BOX)))
    if len(kept) < frames:
        raise ValueError(f"{path}: found {len(kept)} frames, expected {frames} at least, one clip; take it out of the folder")
    return torch.stack(kept[: len(kept) // frames * frames]).unflatten(0, (-1, frames))


def _pictures(path: Path) -> Iterator[Image.Image]:
    """The frames of one film, or the one picture of a file, in colour."""
    suffix = path.suffix.lower()
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if not file.name.startswith("."))
        if wrong := next((file for file in files if file.suffix.lower() not in PICTURES), None):
            raise ValueError(f"{wrong}: found {wrong.suffix or 'no suffix'}, expected pictures alone: {', '.join(PICTURES)}")
        size = None
        for file in files:
            picture = next(_pictures(file))
            if size is not None and picture.size != size:
                raise ValueError(f"{file}: found {picture.size[0]} x {picture.size[1]} pixels, expected {size[0]} x {size[1]} as before")
            size = picture.size
            yield picture
    elif suffix in VIDEOS:
        yield from _frames_of_video(path)
    elif suffix in MOVING + PICTURES:
        try:
            with Image.open(path) as image:
                for frame in ImageSequence.Iterator(image):
                    yield frame.convert("RGB")
        except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{path}: cannot be read as a picture: {error}") from None
    else:
        expected = ", ".join((*VIDEOS, *MOVING, *PICTURES))
        raise ValueError(f"{path}: found {suffix or 'no suffix'}, expected a folder of pictures or one of {expected}")


def _frames_of_video(path: Path) -> Iterator[Image.Image]:
    try:
        import av
    except ImportError:
        raise ImportError(f"{path}: videos need PyAV: pip install 'posttrain[video]'") from None
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise ValueError(f"{path}: holds no video")
            for frame in container.decode(video=0):
                yield frame.to_image()
    except av.FFmpegError as error:
        raise ValueError(f"{path}: cannot be read as a video: {error}") from None


def _bytes(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
