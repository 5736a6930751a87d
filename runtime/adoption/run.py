"""Run `mecpilot adopt`: from a foreign model and footage to a bundle, whole or not at all.

What can be refused is refused first. Then: cuts, the truth, relatives, the choice of codecs, the measurement of all
models in processes of their own, and a profile of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from runtime.adoption.codec_choice import samples_within, tail_runs
from runtime.adoption.describing import WHOLE, first_description, with_families
from runtime.adoption.figures import exit_rows, frames_with_boxes, payload_rows
from runtime.adoption.measuring import Measuring
from runtime.adoption.members import Member, codecs_of, whole_member, whole_seconds, with_codecs
from runtime.adoption.report import REPORT_FILE, REPORT_TEXT, LeftOut, RelativeRow, Report, footage_words, markdown_of
from runtime.adoption.request import Request
from runtime.adoption.steps import Steps, peak_memory_bytes
from runtime.adoption.subject import Subject, open_subject
from runtime.adoption.truths import Truths, answers_as_truths, labels_of, with_truths
from runtime.bundles.bundle import Bundle, open_bundle
from runtime.files.atomic import write_whole
from runtime.files.new_folder import appearing_folder
from runtime.profiling.profile import FORMAT_VERSION, PROFILE_FILE, Profile, default_out, write_profile
from runtime.workloads.adopted.description import ADOPTION_FILE, Adoption, encode_adoption
from runtime.workloads.adopted.workload import Adopted, read_adopted
from runtime.workloads.family_decisions import FamilyDecisions

if TYPE_CHECKING:
    from rich.progress import Progress

MEASURE_BUDGET_S = 240.0  # of one core, for the whole model on both splits
PROFILE_BUDGET_S = 12.0


def run_adoption(request: Request, progress: Progress) -> Report:
    """Make the bundle and return the report; UsageError or FailureError in one line, and nothing is written."""
    torch.set_num_threads(1)
    return _Run(request, Steps(progress)).run()


@dataclass
class _Run:
    """Owns what an adoption has found so far."""

    request: Request
    steps: Steps
    left_out: list[LeftOut] = field(default_factory=list)
    relatives: list[RelativeRow] = field(default_factory=list)

    def run(self) -> Report:
        with self.steps.step("read footage and model, cut the model") as advance:
            subject = open_subject(self.request, advance)
            labels = labels_of(self.request, subject)
        self._leave_frames(subject)
        with appearing_folder(self.request.out) as folder:
            work = self._with_truth(folder, subject, labels)
            members = self._members(folder, work, subject)
            bundle = self._measured(folder, members, subject)
            profile = self._profiled(bundle)
            report = self._report(bundle, read_adopted(folder).adoption, subject, profile)
            data = msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n"
            write_whole(folder / REPORT_FILE, data)
            write_whole(folder / REPORT_TEXT, markdown_of(report).encode())
        return report

    def _leave_frames(self, subject: Subject) -> None:
        if (left := subject.pictures - subject.footage.frames) > 0:
            why = f"the whole model answers {subject.footage.frames} in the time for it; see --frames"
            self.left_out.append(LeftOut(f"the last {left} frames of the footage", why))

    def _with_truth(self, folder: Path, subject: Subject, labels: Truths | None) -> Adopted:
        """The workload with its truth, in the folder."""
        adoption = first_description(self.request, subject)
        write_description(folder, adoption)
        if labels is None:
            with self.steps.step("answers of the whole model") as advance:
                labels = answers_as_truths(folder, subject, self.request, advance)
        self.left_out += labels.left_out
        return write_description(folder, with_truths(folder, adoption, self.request, labels))

    def _members(self, folder: Path, work: Adopted, subject: Subject) -> list[Member]:
        """The models of the bundle, the whole one first; their files and their description are in the folder."""
        members = {WHOLE: whole_member(work, subject.cut)}
        if self.request.relatives:
            with self.steps.step("relatives"):
                made = self._relatives(folder, work, members[WHOLE])
            members |= {member.name: member for member in made}
        found = []
        for member in members.values():
            with self.steps.step(f"codecs of {member.name}") as advance:
                complete, left = with_codecs(work, member, subject.cut, advance)
            self.left_out += left
            complete.save(folder)
            found.append(complete)
        families, decisions = {m.name: m.family for m in found}, {m.name: m.decisions for m in found}
        write_description(folder, with_families(work.adoption, families, decisions))
        return found

    def _relatives(self, folder: Path, work: Adopted, whole: Member) -> list[Member]:
        """The relatives that reached their target; the whole model is among them where it got exit heads."""
        from runtime.adoption.relatives.make import Plan, make_relatives

        plan = Plan(self.request.budget_s, self.request.seed)
        found = make_relatives(work, whole.model, plan, self.steps.parts(), folder / "logs")
        self.left_out += [LeftOut(left.name, left.words) for left in found.left]
        self.relatives = [RelativeRow(made.name, made.words) for made in found.made]
        return [
            Member(
                made.name,
                made.family,
                made.model,
                made.decisions or FamilyDecisions(),
                {"made_from": WHOLE, "how": made.words, "seed": self.request.seed},
            )
            for made in found.made
        ]

    def _measured(self, folder: Path, members: Sequence[Member], subject: Subject) -> Bundle:
        """The bundle in the folder, measured."""
        work = read_adopted(folder)
        whole, cut = members[0], subject.cut
        samples = self.request.samples
        if samples is None:
            tails = tail_runs(codecs_of(whole), cut.macs_after_frac)
            samples = samples_within(MEASURE_BUDGET_S, whole_seconds(work, whole), tails)
        models = tuple(member.trained for member in members)
        with self.steps.step("measure"):
            Measuring(folder, models, samples, self.request.jobs).run(work, self.steps.progress)
        return open_bundle(folder)

    def _profiled(self, bundle: Bundle) -> Profile | None:
        """The profile of this machine, written where it is looked for and beside the bundle; None: not wanted."""
        if not self.request.profile:
            return None
        from runtime.profiling.measure import QUICK_ROUNDS, measure_sides

        with self.steps.step("profile this machine") as advance:
            sides = measure_sides(
                bundle, bundle.work, ("device", "mec"), PROFILE_BUDGET_S, lambda done: advance(done, 1.0), QUICK_ROUNDS
            )
        profile = Profile(FORMAT_VERSION, bundle.workload, bundle.digest, sides["device"], sides["mec"])
        for path in (default_out(bundle), bundle.directory / PROFILE_FILE):
            write_profile(path, profile)
        return profile

    def _report(self, bundle: Bundle, adoption: Adoption, subject: Subject, profile: Profile | None) -> Report:
        return Report(
            name=bundle.workload,
            task=self.request.task,
            model=self.request.model,
            truth=adoption.truth.words,
            footage=self.request.words or footage_words(adoption.footage),
            frames={split: end - start for split, (start, end) in adoption.splits.items()},
            measured_frames=dict(bundle.manifest.sample_counts),
            frames_with_boxes=frames_with_boxes(bundle, read_adopted(bundle.directory)),
            cuts=subject.cut.rows,
            head_tail_error=subject.cut.error,
            exits=exit_rows(bundle, profile),
            payloads=payload_rows(bundle, WHOLE),
            relatives=tuple(self.relatives),
            left_out=tuple(self.left_out),
            decisions=len(bundle.space),
            digest=bundle.digest,
            steps=tuple(self.steps.done),
            peak_memory_bytes=peak_memory_bytes(self.request.jobs),
        )


def write_description(folder: Path, adoption: Adoption) -> Adopted:
    """Write the description into the folder of a bundle; returns its workload."""
    write_whole(folder / ADOPTION_FILE, encode_adoption(adoption))
    return read_adopted(folder)
