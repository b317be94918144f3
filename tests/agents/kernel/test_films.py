"""Films from files: what is read, and one line for everything that is none."""

import sys

import pytest
import torch
from PIL import Image

from posttrain.agents.kernel.films import read_clips, read_picture, to_image, write_picture


def film(num, height=6, width=8, seed=0):
    return torch.randint(256, (num, 3, height, width), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def as_folder(path, frames):
    for i, frame in enumerate(frames):
        write_picture(path / f"{i:03}.png", frame)


def test_folders_of_pictures_are_read_in_order_and_cut_without_overlap(tmp_path):
    first, second = film(7), film(3, seed=1)
    as_folder(tmp_path / "a", first)
    as_folder(tmp_path / "b", second)
    (tmp_path / ".hidden").write_text("not looked at")
    assert torch.equal(read_clips(tmp_path, 3, 6, 8), torch.stack([first[:3], first[3:6], second]))


def test_every_second_picture(tmp_path):
    frames = film(6)
    as_folder(tmp_path / "a", frames)
    assert torch.equal(read_clips(tmp_path, 3, 6, 8, every=2), frames[None, ::2])


def test_a_gif_is_a_film(tmp_path):
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    images = [Image.new("RGB", (8, 6), colour) for colour in colours]
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:])
    clip = read_clips(tmp_path, 3, 6, 8)
    assert [tuple(frame[:, 0, 0].tolist()) for frame in clip[0]] == colours


def test_a_picture_is_scaled_to_cover_and_its_middle_is_taken(tmp_path):
    wide = Image.new("RGB", (12, 4), "black")
    wide.paste("white", (4, 0, 8, 4))
    (tmp_path / "a").mkdir()
    for i in range(2):
        wide.save(tmp_path / "a" / f"{i}.png")
    assert bool((read_clips(tmp_path, 2, 2, 2) == 255).all())


def test_a_video_is_read_by_pyav(tmp_path):
    av = pytest.importorskip("av", reason="PyAV is not installed: pip install 'posttrain[video]'")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 32, 16
        for shade in (0, 100, 200, 250):
            for packet in stream.encode(av.VideoFrame.from_image(Image.new("RGB", (32, 16), (shade,) * 3))):
                container.mux(packet)
        container.mux(stream.encode())
    clip = read_clips(tmp_path, 4, 8, 16)
    assert clip.shape == (1, 4, 3, 8, 16)
    assert clip[0].float().mean((1, 2, 3)).tolist() == pytest.approx([0, 100, 200, 250], abs=8)


def test_without_pyav_a_video_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    (tmp_path / "a.mp4").write_bytes(b"")
    with pytest.raises(ImportError, match=r"a\.mp4: videos need PyAV: pip install 'posttrain\[video\]'"):
        read_clips(tmp_path, 3, 6, 8)


def test_a_file_that_is_no_video_is_one_line(tmp_path):
    pytest.importorskip("av", reason="PyAV is not installed: pip install 'posttrain[video]'")
    (tmp_path / "a.mp4").write_bytes(b"not a video at all")
    with pytest.raises(ValueError, match=r"a\.mp4: cannot be read as a video: [^\n]*$"):
        read_clips(tmp_path, 3, 6, 8)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("notes.txt", b"hello", r"notes\.txt: found \.txt, expected a folder of pictures or one of \.mp4"),
        ("film", b"hello", "film: found no suffix, expected"),
        ("a.gif", b"GIF89a and then nothing", r"a\.gif: cannot be read as a picture"),
        ("a.png", b"", r"a\.png: cannot be read as a picture"),
    ],
)
def test_what_is_no_film_is_named(tmp_path, name, content, said):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=said) as caught:
        read_clips(tmp_path, 3, 6, 8)
    assert "\n" not in str(caught.value)


def test_folders_that_cannot_be_cut_are_named(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such folder"):
        read_clips(tmp_path / "nowhere", 3, 6, 8)
    with pytest.raises(ValueError, match="is empty, expected videos"):
        read_clips(tmp_path, 3, 6, 8)
    as_folder(tmp_path / "short", film(2))
    with pytest.raises(ValueError, match="short: found 2 frames, expected 3 at least"):
        read_clips(tmp_path, 3, 6, 8)
    (tmp_path / "short" / "sound.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"sound\.wav: found \.wav, expected pictures alone"):
        read_clips(tmp_path, 3, 6, 8)


def test_pictures_of_different_sizes_are_no_film(tmp_path):
    as_folder(tmp_path / "a", film(2))
    write_picture(tmp_path / "a" / "999.png", film(1, width=4)[0])
    with pytest.raises(ValueError, match=r"999\.png: found 4 x 6 pixels, expected 8 x 6 as before"):
        read_clips(tmp_path, 3, 6, 8)


def test_a_picture_to_begin_with_has_just_the_size_asked_for(tmp_path):
    picture = film(1)[0]
    write_picture(tmp_path / "a.png", picture)
    assert torch.equal((read_picture(tmp_path / "a.png", 6, 8) * 255).round().byte(), picture)
    with pytest.raises(ValueError, match=r"a\.png: found 8 x 6 pixels, expected 16 x 6"):
        read_picture(tmp_path / "a.png", 6, 16)


def test_enlarged_pixels_are_squares():
    image = to_image(film(1)[0], scale=3)
    assert image.size == (24, 18)
    assert image.getpixel((0, 0)) == image.getpixel((2, 2))
