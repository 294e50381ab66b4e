"""Settings of a classifier's training on several corpora at once; the defaults train on one."""

from __future__ import annotations

from typing import Annotated, ClassVar, TypeAlias

import msgspec

from edge_sdk.settings import Positive, Settings

Share: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)]
Part: TypeAlias = Annotated[float, msgspec.Meta(ge=0.0, le=1.0)]


class JointSection(Settings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """More corpora than the one of ``--corpus``, and how examples are balanced over corpora, devices and patients.

    ``extra``, ``unlabelled`` and ``noise`` are written NAME or NAME=FOLDER; a relative FOLDER (by default NAME) lies in
    ``$STETHO_DATA``, else beside the root of the main corpus.
    """

    title: ClassVar[str] = "joint"

    extra: tuple[str, ...] = ()  # corpora with cycles, or with labelled recordings, whose cycles get weak labels
    shares: dict[str, Positive] = msgspec.field(
        default_factory=dict
    )  # of the examples, by corpus; empty: by what each corpus holds
    all_patients: bool = False  # train on the validation patients too; nothing is reported then
    normal_share: Share = 0.0  # of the examples of each device; 0: classes are drawn by sampling.class_power
    device_power: Part = 0.0  # within a corpus: 0 devices as they occur, 1 all alike
    # By corpus: a cycle of a patient with n of them weighs n ** -power.
    patient_power: dict[str, Part] = msgspec.field(default_factory=dict)
    weak_share: Part = 0.6  # of the cycles of an abnormal recording: those that ``weak_model`` ranks most abnormal
    weak_model: str = "default"  # bundle or checkpoint
    weak_segmenter: str = "default"  # bundle that finds the cycles; empty: consecutive windows instead
    weak_window_s: Positive = 2.0  # their length, also where no cycle is found
    unlabelled: tuple[str, ...] = ()  # corpora of clips whose labels, where they have any, are not used,
    teacher: str = ""  # and the checkpoint that labels them; {fold}, {seed}: numbers of a cross-validation
    sure_abnormal: Part = 0.75  # probability of abnormal from which a clip takes the teacher's label,
    sure_normal: Part = 0.8  # and that of normal; the others are not trained on
    noise: str = ""  # corpus of noise without breath, taken as normal
    noise_share: Share = 0.0  # of the examples
    noise_held_out: Share = 0.25  # of its sources: never used, so that the figures on noise stay honest
    noise_mixed: bool = False  # mix it into other examples too, as recordings of poor quality are

    @property
    def active(self) -> bool:
        """Whether examples are balanced by this section rather than by class alone."""
        return bool(self.extra or self.shares or self.normal_share or self.device_power or self.patient_power)

    def _problem(self) -> str | None:
        if bool(self.noise) != bool(self.noise_share or self.noise_mixed):
            return "noise names the corpus for noise_share or noise_mixed; set both or neither"
        others = (*self.extra, *self.unlabelled)
        names = {entry.partition("=")[0] for entry in others}
        if len(names) != len(others):
            return f"extra and unlabelled name a corpus twice: {', '.join(others)}"
        if self.shares and (missing := names - set(self.shares)):
            absent = ", ".join(sorted(missing))
            return f"shares must name every corpus of extra and unlabelled, and the main one; {absent} missing"
        return None
