"""Training to learn in context: sequences read as prompts do, runs that resume to the same bits, and a model that really learns."""

import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from posttrain.config import ConfigError, build
from posttrain.run import RunFolder
from posttrain.sft import families, in_context
from posttrain.sft.families import LabelsFamily, LinearFamily, ParityFamily
from posttrain.sft.in_context import Config, draw_batch, main, new_model, rate, tokens
from posttrain.tasks.icl import labels, linear, parity
from posttrain.tasks.icl.labels import LabelsInContext
from posttrain.tasks.icl.linear import LinearInContext
from posttrain.tasks.icl.parity import ParityInContext

LANGUAGE = {"things": 6, "qualities": 8, "remarks": 3}
LABELS = {"kind": "labels", "language": LANGUAGE, "schemes": {"default": 1, "own": 1}, "noise": [0.0, 0.5]}
LINEAR = {"kind": "linear", "dimensions": [2, 3]}
PARITY = {"kind": "parity", "rows": {"kind": "parity", "bits": 6, "pool_size": 40, "test_size": 20}}
SMALL = {"hidden_size": 16, "layers": 1, "heads": 2, "mlp_size": 16, "context": 128}


def config_with(**changed) -> Config:
    tree = {
        "model": SMALL,
        "families": {"linear": LINEAR, "labels": LABELS},
        "steps": 60,
        "tokens": 64,
        "checkpoint_every": 50,
        "lengths": {"shortest": 16, "first_longest": 32, "longest": 64, "grow_steps": 30},
    }
    return build(Config, [("recipe.yaml", {"kind": "icl_pretrain", **tree, **changed})])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("icl") / "run"
    assert main(config_with(), out, resume=False) == 0
    return out


def prompt(layout, shots, item) -> str:
    written = [layout.question_label + shot.question + layout.answer_label + shot.solution + layout.divider for shot in shots]
    return "".join(written) + layout.question_label + item.question + layout.answer_label


@pytest.mark.parametrize(
    ("module", "task", "family"),
    [
        (linear, LinearInContext(dimensions=3, largest=8, named=True, per_class=8, test_per_class=4), LinearFamily(dimensions=(2, 3))),
        (labels, LabelsInContext(remarks=True, pool_size=20, test_size=5), LabelsFamily()),
        (
            parity,
            ParityInContext(bits=6, pool_size=20, test_size=20),
            ParityFamily(rows=ParityInContext(bits=6, pool_size=20, test_size=20)),
        ),
    ],
)
def test_a_prompt_of_the_task_is_read_as_the_very_tokens_of_training(module, task, family):
    tokenizer = in_context.word_tokenizer(families.vocabulary([family]))
    pool, item = (in_context_task := module.make_icl(task)).load("pool")[:4], module.make_icl(task).load("test")[0]
    world = families.World(examples=[*pool, item], layout=in_context_task.layout)
    ids, carried = tokens(world, tokenizer.get_vocab())
    text = prompt(in_context_task.layout, pool, item)
    asked = tokenizer.encode(text.rstrip(" "), add_special_tokens=False)
    assert ids[: len(asked)] == asked  # a prompt ends before the space that belongs to the answer's first token
    answer = [label for label in carried if label != in_context.IGNORED]
    assert tokenizer.decode(answer).split() == [word for shot in [*pool, item] for word in shot.solution.split()]
    assert tokenizer.decode(ids) == text + item.solution + in_context_task.layout.divider
    assert len(ids) <= 5 * families.tokens_per_example(family, 3)


def test_the_updates_of_a_run_depend_on_recipe_and_step_alone():
    cfg, tokenizer = config_with(), new_model(config_with())[1]
    for step in (1, 20, 59):
        one, again = draw_batch(cfg, tokenizer, step), draw_batch(cfg, tokenizer, step)
        assert torch.equal(one.ids_BT, again.ids_BT)
        assert torch.equal(one.label_BT, again.label_BT)
    assert not torch.equal(draw_batch(config_with(seed=1), tokenizer, 1).ids_BT[:1, :8], draw_batch(cfg, tokenizer, 1).ids_BT[:1, :8])


def test_sequences_and_dimensions_grow():
    cfg, tokenizer = config_with(families={"linear": LINEAR}, tokens=512), new_model(config_with())[1]
    early = [draw_batch(cfg, tokenizer, step).ids_BT for step in range(1, 8)]
    late = [draw_batch(cfg, tokenizer, step).ids_BT for step in range(60, 100)]
    assert max(ids.shape[1] for ids in early) < max(ids.shape[1] for ids in late) <= 64
    third = tokenizer.get_vocab()[" c1"]
    assert not any((ids == third).any() for ids in early)
    assert any((ids == third).any() for ids in late)


def test_every_world_is_a_fresh_one_and_holds_to_its_rule():
    told = families.worlds(LabelsFamily(schemes={"own": 1.0}, remarks=0.0), 0, rows=6, examples=60, seed=3)
    rules = []
    for world in told:
        rule: dict[str, set[str]] = {}
        for example in world.examples:
            rule.setdefault(example.question.split()[1], set()).add(example.solution)
        assert all(len(answers) == 1 for answers in rule.values())
        rules.append(rule)
    assert len({tuple(sorted((quality, *answers) for quality, answers in rule.items())) for rule in rules}) == 6
    assert len({len(rule) for rule in rules}) > 2  # few words that come often, or many


def test_parity_rows_come_once_each_and_never_from_the_test_split():
    cfg = config_with(families={"rows": PARITY}, steps=10, tokens=68)
    tokenizer = new_model(cfg)[1]
    rows = [tuple(row.tolist()) for step in range(1, 11) for row in draw_batch(cfg, tokenizer, step).ids_BT]
    assert len(set(rows)) == len(rows) == 40
    tested = {problem.question for problem in parity.load(cfg.families["rows"].rows, "test")}
    read = {tokenizer.decode(row).splitlines()[0].removeprefix("Input: ") for row in rows}
    assert not tested & read


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"families": {"rows": PARITY}}, "families.rows: 180 rows, each read once, but the pool has 40"),
        ({"model": {"heads": 3}}, "heads must share hidden_size in even parts, got 3 and 64"),
        ({"lengths": {"longest": 9999}}, "lengths.longest is 9999, above model.context = 128"),
        ({"checkpoint_every": 60}, "must be a multiple of 50"),
        ({"families": {"planes": {"kind": "planar"}}}, "families.planes.kind"),
    ],
)
def test_recipes_that_make_no_sense_are_refused(changed, said):
    with pytest.raises(ConfigError) as caught:
        config_with(**changed)
    assert said in str(caught.value)


def test_the_learning_rate_warms_up_and_then_falls():
    cosine, root = config_with(warmup_steps=10), config_with(warmup_steps=10, schedule="inverse_sqrt")
    assert [rate(cosine, step) for step in (5, 10)] == [0.5 * cosine.lr, cosine.lr]
    assert rate(root, 40) == pytest.approx(root.lr / 2)
    assert 0 < rate(cosine, 60) < 0.01 * cosine.lr


def test_heads_that_look_back_begin_by_attending_so_many_places_back():
    model, tokenizer = new_model(config_with(model={**SMALL, "hidden_size": 64, "heads": 4, "look_back": 8.0}))
    plain, _ = new_model(config_with(model={**SMALL, "hidden_size": 64, "heads": 4, "look_back": 0.0}))
    ids = torch.randint(4, len(tokenizer), (1, 100), generator=torch.Generator().manual_seed(0))
    at = torch.arange(20, 100)
    for each, fixed in ((model, True), (plain, False)):
        each.set_attn_implementation("eager")
        with torch.no_grad():
            attention = each(ids, output_attentions=True).attentions[0][0]
        for head in range(4):
            assert (attention[head, at, at - head - 1].mean().item() > 0.8) == fixed


def test_the_saved_model_and_tokenizer_load_by_plain_from_pretrained(finished):
    model, tokenizer = AutoModelForCausalLM.from_pretrained(finished / "model"), AutoTokenizer.from_pretrained(finished / "model")
    made = new_model(config_with())[1]
    assert model.get_input_embeddings().num_embeddings == len(tokenizer) == len(made)
    text = "a3 b7 Foo\nthing1 quality2 remark0 neutral\nthing0 quality1"
    assert tokenizer.encode(text) == made.encode(text)
    assert len(tokenizer.encode(text)) == 11


def test_a_finished_run_is_left_alone_and_another_recipes_is_refused(finished):
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    assert main(config_with(), finished, resume=True) == 0
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before
    with pytest.raises(ConfigError, match="the recipe differs from the recorded one in: lr"):
        main(config_with(lr=1e-5), finished, resume=True)


def test_a_killed_run_goes_on_from_its_checkpoint_to_the_same_bits(finished, tmp_path, monkeypatch):
    run, update = tmp_path / "run", in_context.update
    steps = iter(range(55))

    def killed(*args):
        if next(steps, None) is None:
            raise KeyboardInterrupt
        return update(*args)

    monkeypatch.setattr(in_context, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        main(config_with(), run, resume=False)
    monkeypatch.undo()
    assert torch.load(run / "training.pt", weights_only=True)["step"] == 50
    assert main(config_with(), run, resume=True) == 0
    again, expected = load_file(run / "model" / "model.safetensors"), load_file(finished / "model" / "model.safetensors")
    assert all(torch.equal(again[name], expected[name]) for name in expected)
    assert RunFolder(run, config_with(), resume=True).metrics() == RunFolder(finished, config_with(), resume=True).metrics()
    assert not (run / "training.pt").exists()
    shutil.rmtree(run)
