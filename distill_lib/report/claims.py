"""What the paper says (Beyer et al., CVPR 2022, sections 3 and 4), what the records say, and whether the two agree."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pandas as pd

from distill_lib import records, views
from distill_lib.report import aggregate, comparisons, differences
from distill_lib.report.aggregate import percent
from distill_lib.report.differences import Difference

TRUNK, MIX = "same/ic", "mix"  # the two policies that most are compared with
FIXED = ("fix/rs", "fix/cc", "fix/ic_ens")
BESIDE = {"ind/rc": "same/rc", "ind/ic": "same/ic"}  # the same crops, in one view


@dataclass(frozen=True, kw_only=True)
class Claim:
    """One statement of the paper, the sign of a difference that bears it out, and what was compared."""

    paper: str
    wanted: int
    cases: tuple[Difference, ...]

    @property
    def verdict(self) -> str:
        """As of `differences.verdict`."""
        return differences.verdict(self.cases, self.wanted)


def all_claims(runs: pd.DataFrame) -> list[Claim]:
    """Every claim, from the table of `records.read`; p-values are corrected for the differences of all of them."""
    study = aggregate.study(runs)
    fixed = dict.fromkeys(FIXED, TRUNK)
    mix = differences.at_every_length(study, MIX, TRUNK)
    labels = comparisons.differences_of(runs, "labels")  # at the best of several settings, for one length
    tuned = max((each.epochs for each in labels), default=0)
    labels = [*labels, *(each for each in _pairs(study, {TRUNK: "labels"}) if each.epochs > tuned)]
    best, teacher, beside_teacher = aggregate.best(study), aggregate.teacher_top1(runs), list[Difference]()
    if len(best) and teacher is not None:
        beside_teacher = [differences.against(best, teacher, (best["policy"].iloc[0], "the teacher"))]
    stated = {
        ("A student of a fixed teacher fits its training views better.", -1): _pairs(study, fixed, "train_loss"),
        ("A fixed teacher generalises worse than consistent teaching.", -1): _pairs(study, fixed),
        ("Independent views are worse than the same view.", -1): _pairs(study, BESIDE),
        ("Labels alone are worse than consistent teaching.", 1): labels,
        ("Function matching trails consistent teaching in short runs.", -1): mix[:1],
        ("Function matching wins in long runs.", 1): mix[-1:],
        ("With the same views for both, a longer schedule is better.", 1): _longer(study, (TRUNK, MIX), since=0),
        ("A fixed teacher's students peak, and then fall back.", -1): _longer(study, FIXED, since=-2),
        ("A patient student comes up to its teacher.", 1): beside_teacher,
    }
    return [
        Claim(paper=paper, wanted=wanted, cases=tuple(cases))
        for (paper, wanted), cases in differences.holm_of_groups(stated).items()
    ]


def _pairs(study: pd.DataFrame, beside: dict[str, str], metric: str = "test_top1") -> list[Difference]:
    return [each for pair in beside.items() for each in differences.at_every_length(study, *pair, metric)]


def _longer(study: pd.DataFrame, policies: Iterable[str], since: int) -> list[Difference]:
    gains = []
    for policy in policies:
        lengths = [group for _, group in study[study["policy"] == policy].groupby("epochs")]
        if len(lengths) > 1:
            names = (policy, f"that of {aggregate.length(lengths[since]['epochs'].iloc[0])}")
            gains.append(differences.compare(lengths[-1], lengths[since], names))
    return [gain for gain in gains if gain is not None]


def table(claims: Iterable[Claim]) -> pd.DataFrame:
    """Claims as a table to print, a row a comparison; statement and verdict stand in the first row of each."""
    rows = []
    for claim in claims:
        for number, case in enumerate(claim.cases or [None]):
            paper, verdict = ("", "") if number else (claim.paper, claim.verdict)
            row = {"the paper": paper, "here": _in_words(case) if case else ""} | differences.columns(case)
            rows.append(row | {"verdict": verdict})
    return pd.DataFrame(rows)


def reason(claim: Claim) -> str:
    """Why a verdict is what it is, in a sentence or two: what is seen, and where what is not seen points."""
    several = [case for case in claim.cases if not case.single]
    if not several:
        return "Each comparison has a side of one run." if claim.cases else ""
    if len(several) == 1:
        named = _in_words(several[0])
        return f"{named[:1].upper()}{named[1:]}: {differences.in_words(several[0])}."
    signs = [case.sign * claim.wanted for case in several]
    parts = [f"Seen in {signs.count(1)} of {len(several)} comparisons"]
    if -1 in signs:
        otherwise = [case for case, sign in zip(several, signs, strict=True) if sign == -1]
        named = "; ".join(f"{_in_words(case)}: {differences.value_of(case)}" for case in otherwise)
        parts.append(f"Seen to be otherwise: {named}")
    if undecided := [case for case in several if not case.sign]:
        toward = sum(case.value * claim.wanted > 0 for case in undecided)
        alone = f"{sum(case.p < differences.LEVEL for case in undecided)} with *p* below .05 before correction"
        parts.append(f"Undecided: {len(undecided)}, of which {toward} with the paper's sign and {alone}")
    return f"{'. '.join(parts)}."


def _in_words(difference: Difference) -> str:
    first, second = (views.NAMES.get(name, name) for name in (difference.first, difference.second))
    return f"{first}, {aggregate.length(difference.epochs)}, minus {second}"


def tally(claims: Iterable[Claim]) -> str:
    """How many claims have each verdict, as part of a sentence."""
    counts = Counter(claim.verdict for claim in claims)
    return ", ".join(f"{verdict}: {count}" for verdict, count in counts.most_common())


def as_text() -> str:
    """The claims of the paper and what the records say of each, for a terminal: n, difference, interval and p."""
    runs = records.read()
    return str(table(all_claims(runs)).to_string(index=False, max_colwidth=96))


def headline(runs: pd.DataFrame) -> str:
    """The study in one sentence; the best student is the one that validation images choose."""
    study, teacher = aggregate.study(runs), aggregate.teacher_top1(runs)
    best = aggregate.best(study)
    if best.empty:
        return aggregate.NONE
    policy, epochs, plural = best["policy"].iloc[0], best["epochs"].iloc[0], "" if len(best) == 1 else "s"
    text = (
        f"The study's student that is best on validation images ({views.NAMES[policy]}, {aggregate.length(epochs)}, "
        f"{len(best)} run{plural}) gets {percent(best['test_top1'].mean())} of the test images right"
    )
    labels = study.loc[(study["policy"] == "labels") & (study["epochs"] == epochs), "test_top1"]
    others = [] if teacher is None else [f"its teacher {percent(teacher)}"]
    if len(labels):
        alone = "the same network with the same settings, trained as long on labels alone"
        others.append(f"{alone}, {percent(labels.mean())}")
    return f"{'; '.join(filter(None, [text, ' and '.join(others)]))}."


def fresh(runs: pd.DataFrame) -> str:
    """Whether there is a fresh run of this machine, and from when."""
    own = aggregate.study(runs, [aggregate.FRESH])
    if len(own):
        return f"A fresh run is present: {records.provenance(own).partition(' Runs:')[0]}"
    return (
        f"There is no fresh run here: `results/fashion_{aggregate.FRESH}` holds no records. "
        "The command `nox -s study` makes them, and they appear in the chapters on consistency and on patience."
    )


def fresh_table(runs: pd.DataFrame) -> pd.DataFrame:
    """The fresh runs beside what the committed means, linear in the logarithm of the epochs, lead one to expect."""
    study, rows = aggregate.study(runs), []
    for own in aggregate.summary(aggregate.study(runs, [aggregate.FRESH])).itertuples():
        share = aggregate.expected(study[study["policy"] == own.policy], own.epochs)
        row = {"policy": views.NAMES[own.policy], "epochs": f"{own.epochs:,.0f}", "n": own.n}
        row |= {"fresh run (%)": aggregate.rounded(100 * own.mean)}
        row["expected (%)"] = aggregate.ABSENT if share is None else aggregate.rounded(100 * share)
        gap = aggregate.ABSENT if share is None else differences.signed(100 * (own.mean - share))
        rows.append(row | {"difference": gap})
    return pd.DataFrame(rows)


def chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """What the grid's shortest schedule chooses for each policy by validation accuracy, beside what the study uses.

    Settings are learning rate / weight decay / temperature; `cost` is what the study's lose, in points, if tried.
    """
    tried = aggregate.selection(aggregate.grid(runs))
    study, rows, names = aggregate.study(runs), [], list(aggregate.CHOSEN)
    for policy, group in tried[tried["epochs"] == tried["epochs"].min()].groupby("policy", sort=False):
        free = 2 if policy in views.BASELINES else 3
        used, top1 = study[study["policy"] == policy].head(1), 100 * group["validation_top1"]
        several = pd.concat([group.head(1)[names], used[names]]).to_numpy(float)
        settings = [f"{aggregate.BLANK}/{aggregate.BLANK}".join(map("{:g}".format, each[:free])) for each in several]
        lost = top1.iloc[0] - top1[(group[names] == several[-1]).all(axis=1) & (len(used) > 0)]
        row = {"policy": views.NAMES[policy], "settings tried": len(group), "chosen": settings[0]}
        row |= {"validation top-1 (%)": f"{top1.iloc[0]:.1f}", "the study uses": [*settings, aggregate.ABSENT][1]}
        rows.append(row | {"cost": [*lost.map("{:.1f}".format), aggregate.ABSENT][0]})
    return pd.DataFrame(rows)
