"""Event scores that ``bench peers`` compares; each imports its library only when it is created."""

from __future__ import annotations

from typing import Any

from benchmarks.peers.workload import PeerWorkload


class SedEval(PeerWorkload):
    """Event scores of sed_eval on the given events."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        import sed_eval
        from dcase_util.containers import MetaDataContainer

        self.sed_eval = sed_eval
        self.recordings = [
            [
                MetaDataContainer(
                    [{"filename": f"{number}.wav", "event_label": "breath", "onset": b, "offset": e} for b, e in spans]
                )
                for spans in (row["truth"], row["found"])
            ]
            for number, row in enumerate(settings["events"])
        ]
        self.about = {"f1": self.go(), "engine": f"sed_eval-{sed_eval.__version__}"}

    def go(self) -> object:
        metric = self.sed_eval.sound_event.EventBasedMetrics(["breath"], t_collar=0.2, percentage_of_length=0.5)
        for truth, found in self.recordings:
            metric.evaluate(reference_event_list=truth, estimated_event_list=found)
        return metric.results_overall_metrics()["f_measure"]["f_measure"]


class OurEvents(PeerWorkload):
    """Event scores of the SDK on the given events."""

    def __init__(self, settings: dict[str, Any]) -> None:
        super().__init__(settings)
        from edge_sdk.metrics.matching import f1, match_collar

        self.match, self.f1 = match_collar, f1
        self.about = {"f1": self.go()}

    def go(self) -> object:
        rows = self.settings["events"]
        matched = sum(len(self.match(r["truth"], r["found"], 0.2)) for r in rows)
        return self.f1(matched, sum(len(r["truth"]) for r in rows), sum(len(r["found"]) for r in rows))
