"""Routing: by words, by embedding, by likelihood; ties, abstention, calibration."""

from __future__ import annotations

import asyncio
import math
import threading

import numpy as np
import pytest
import torch
from made_adapters import write
from oracles.models import tiny

from bargain_env.errors import InputError
from hyperlora import build_nano_tokenizer
from hyperlora.adapters import (
    AdapterManager,
    AdapterRegistry,
    AdapterRouter,
    AdapterSpec,
    Embeddings,
    HashedNgrams,
    Likelihood,
    LoRA,
    OfferFeatures,
    OfferHistory,
    write_peft,
)
from hyperlora.adapters.routing import Scores, confidences, fitted_temperature

WORDS = {
    "medical": ["health", "medication", "symptom", "doctor", "diagnosis", "treatment"],
    "legal": ["law", "contract", "court", "regulation"],
    "coding": ["code", "function", "debug", "error"],
}


def registry_of(folder, specs):
    registry = AdapterRegistry(folder)
    for spec in specs:
        registry.register_adapter(spec)
    return registry


@pytest.fixture
def domains(tmp_path):
    return registry_of(
        tmp_path, [AdapterSpec(f"{d}-1", "", d, keywords=tuple(w), description=" ".join(w)) for d, w in WORDS.items()]
    )


@pytest.mark.parametrize(
    ("query", "want"),
    [
        ("Which medication did the doctor give as treatment?", ["medical-1"]),
        ("The COURT read the contract; debug it", ["legal-1", "coding-1"]),
        ("decode the encoded thing", []),  # 'code' is no word of it
        ("", []),
    ],
)
def test_keywords(domains, query, want):
    assert [name for name, _ in AdapterRouter(domains, method="keyword").select(query)] == want


def test_the_confidence_of_keywords_is_the_share_that_was_found(domains):
    router = AdapterRouter(domains, method="keyword")
    assert router.select("doctor, symptom, health")[0] == ("medical-1", pytest.approx(0.5))
    assert router.select("law contract court regulation") == [("legal-1", pytest.approx(1.0))]


def test_a_keyword_that_all_share_decides_little(tmp_path):
    registry = registry_of(
        tmp_path, [AdapterSpec(n, "", n, keywords=("price", own)) for n, own in {"a": "slow", "b": "fast"}.items()]
    )
    (first, rare), (second, common) = AdapterRouter(registry, method="keyword").select("a fast price")
    assert (first, second) == ("b", "a")
    assert common < 0.5 < rare


def test_ties_are_in_the_order_of_names_whatever_that_of_the_registry(tmp_path_factory):
    specs = [AdapterSpec(n, "", "law", keywords=("court",)) for n in ("zeta", "alpha", "mid")]
    for order in (specs, specs[::-1]):
        router = AdapterRouter(registry_of(tmp_path_factory.mktemp("r"), order), method="keyword")
        assert router.select("court", top_k=2) == [("alpha", 1.0), ("mid", 1.0)]
    strict = AdapterRouter(registry_of(tmp_path_factory.mktemp("r"), specs), method="keyword", margin=0.1)
    assert strict.select("court") == []


def test_a_router_abstains_below_its_threshold(domains):
    query = "a court"
    found = AdapterRouter(domains, method="keyword").select(query)[0][1]
    assert AdapterRouter(domains, method="keyword", threshold=found).select(query)
    assert not AdapterRouter(domains, method="keyword", threshold=found + 1e-9).select(query)


def test_only_the_domains_asked_for(domains):
    router = AdapterRouter(domains, method="keyword")
    assert [n for n, _ in router.select("court code", domains=["coding"])] == ["coding-1"]
    assert router.select("court code", domains=[]) == []


def test_embedding_of_text_needs_no_model_and_says_the_same_every_time(domains):
    router = AdapterRouter(domains)
    found = router.select("medications and diagnoses by doctors")
    assert found[0][0] == "medical-1"
    assert found == AdapterRouter(domains).select("medications and diagnoses by doctors")
    assert asyncio.run(router.route("medications and diagnoses by doctors")) == found
    assert router.select("zzzz qqqq") == []
    assert router.select("") == []


class Later:
    """An asynchronous client: words as counts of letters."""

    def __init__(self):
        self.asked = []

    async def embed(self, text):
        self.asked.append(text)
        return [float(text.lower().count(letter)) for letter in "abcdefghijklmnopqrstuvwxyz"]


def test_an_asynchronous_client(domains):
    router = AdapterRouter(domains, Later())
    asyncio.run(router.initialize_domain_embeddings())
    text = "legal: law contract court regulation"
    assert asyncio.run(router.route(text))[0] == ("legal-1", pytest.approx(1.0))
    with pytest.raises(InputError, match="await route"):
        router.select(text)
    with pytest.raises(InputError, match="await route"):
        router.calibrate({"legal-1": [text]})


def test_descriptions_are_embedded_once(domains):
    client, text = Later(), "law and contract"
    router = AdapterRouter(domains, client)
    for _ in range(3):
        asyncio.run(router.route(text))
    described = {f"{spec.domain}: {spec.description}" for spec in domains.list_adapters()}
    assert sorted(client.asked) == sorted([*described, *[text] * 3])


def test_a_client_that_takes_its_time_does_not_stop_the_event_loop(domains):
    """It waits for something that only the loop, going on meanwhile, lets happen."""
    go_on = threading.Event()

    class Slow(HashedNgrams):
        def embed(self, text):
            assert go_on.wait(10)
            return super().embed(text)

    async def scene():
        routed = asyncio.create_task(AdapterRouter(domains, Slow()).route("law and contract"))
        await asyncio.sleep(0)
        go_on.set()
        return await routed

    assert asyncio.run(scene())


# ---- offers


def histories(kind, count, start=0):
    """Games of two kinds of seller: one that concedes early, one that holds out."""
    found = []
    for game in range(start, start + count):
        noise = np.random.default_rng([game, kind == "early"])
        time = np.arange(6) / 10.0
        share = time**0.5 if kind == "early" else time**3.0
        offers = 1400.0 - 600.0 * share + noise.normal(0.0, 10.0, 6)
        replies = 400.0 + 300.0 * time + noise.normal(0.0, 10.0, 6)
        found.append(OfferHistory("seller", offers.tolist(), replies.tolist(), 200.0, 1500.0))
    return found


def test_learned_centroids_tell_styles_apart_and_know_what_they_do_not_know(tmp_path):
    registry = registry_of(tmp_path, [AdapterSpec(n, "", n) for n in ("early", "late")])
    router = AdapterRouter(registry, OfferFeatures(), threshold=0.5)
    router.learn({"early": histories("early", 30), "late": histories("late", 30)})
    for kind in ("early", "late"):
        right = [router.select(h, top_k=1) for h in histories(kind, 20, start=100)]
        assert np.mean([bool(r) and r[0][0] == kind for r in right]) >= 0.9
    stranger = OfferHistory("seller", [300.0, 900.0, 250.0, 1400.0], [900.0, 300.0, 800.0], 200.0, 1500.0)
    assert router.select(stranger) == []


class Said:
    """A method that finds what it is asked."""

    threshold = 0.0

    def prepare(self, query):
        return query

    def scores(self, prepared, specs):
        return prepared


def test_who_resembles_two_is_no_stranger(tmp_path):
    router = AdapterRouter(registry_of(tmp_path, [AdapterSpec(n, "", n) for n in "ab"]), scorer=Said())
    either = {"a": math.log(0.3), "b": math.log(0.3)}
    assert router.select(Scores(either, log=True, null=math.log(0.2))) == [
        ("a", pytest.approx(0.3)),
        ("b", pytest.approx(0.3)),
    ]
    assert router.select(Scores(either, log=True, null=math.log(0.35))) == []
    router.known = 0.4
    assert [name for name, _ in router.select(Scores(either, log=True, null=math.log(0.35)))] == ["a", "b"]


def test_the_null_of_learned_centroids_is_somebody_new_of_their_kind(tmp_path):
    draw = np.random.default_rng(0)
    specs = [AdapterSpec(f"p{k}", "", "d") for k in range(30)]
    centres = draw.normal(0.0, 3.0, (30, 2))
    method = Embeddings(AsIs())
    method.learn({s.name: list(c + draw.normal(0.0, 0.3, (20, 2))) for s, c in zip(specs, centres, strict=True)})
    scores = method.scores(centres[0], specs)
    assert max(scores.values, key=scores.values.get) == "p0"
    assert min(scores.values.values()) < scores.null < max(scores.values.values())
    known = [centre + draw.normal(0.0, 0.3, 2) for centre in centres for _ in range(5)]
    strange = list(draw.normal(0.0, 3.0, (150, 2)))
    here, there = (
        np.array([1.0 - confidences(method.scores(x, specs), None)[1] for x in some]) for some in (known, strange)
    )
    assert (here[:, None] > there).mean() > 0.8


class AsIs:
    """A client whose queries are vectors."""

    def embed(self, query):
        return query


@pytest.mark.parametrize(("examples", "most"), [(2, 0.1), (5, 0.03), (30, 0.02), (100, 0.02)])
def test_fresh_examples_of_a_known_kind_are_seldom_like_nothing_known(examples, most):
    draw = np.random.default_rng(examples)
    specs = [AdapterSpec(n, "", n) for n in ("near", "far")]
    mix = draw.normal(0.0, 1.0, (6, 6))  # features that go together, as those of offers do
    strange = abstained = 0
    for _ in range(40):
        method = Embeddings(AsIs())
        method.learn({s.name: 4.0 * i + draw.normal(0.0, 1.0, (examples, 6)) @ mix for i, s in enumerate(specs)})
        fresh = [4.0 * i + draw.normal(0.0, 1.0, (50, 6)) @ mix for i in range(2)]
        abstained += sum(not method.scores(query, specs).values for rows in fresh for query in rows)
        strange += sum(not method.scores(query, specs).values for query in draw.normal(0.0, 300.0, (10, 6)))
    assert abstained / 4000 <= most
    assert strange / 400 >= 0.9


@pytest.mark.parametrize("counts", [{"a": 1, "b": 1}, {"a": 1, "b": 5}, {"a": 0, "b": 5}, {"a": 5}, {}])
def test_too_few_examples_to_say_how_far_is_far(counts):
    with pytest.raises(InputError, match="two examples each or more; too few for a"):
        Embeddings(AsIs()).learn({name: np.zeros((count, 3)) for name, count in counts.items()})


def test_offer_features_see_both_seats_alike():
    seller = OfferHistory("seller", [1400.0, 1300.0, 1250.0], [300.0, 400.0], 200.0, 1500.0)
    buyer = OfferHistory("buyer", [300.0, 400.0, 450.0], [1400.0, 1300.0], 200.0, 1500.0)
    a, b = (OfferFeatures().embed(h) for h in (seller, buyer))
    assert np.allclose(a, b)
    assert not np.allclose(a, OfferFeatures().embed(OfferHistory("seller", [1400.0, 1390.0], [300.0], 200.0, 1500.0)))
    assert np.isfinite(OfferFeatures().embed(OfferHistory("buyer", [300.0], [], 200.0, 1500.0))).all()
    for wrong in (("seller", [], [], 0.0, 1.0), ("seller", [1.0], [], 1.0, 1.0), ("third", [1.0], [], 0.0, 1.0)):
        with pytest.raises(InputError):
            OfferFeatures().embed(OfferHistory(*wrong))


# ---- posteriors


def test_the_temperature_that_calibrates_is_found():
    draw = np.random.default_rng(0)
    labelled = []
    for _ in range(800):
        logits = draw.normal(0.0, 1.0, 3)
        label = draw.choice(3, p=np.exp(logits) / np.exp(logits).sum())
        labelled.append((Scores(dict(zip("abc", 5.0 * logits, strict=True)), log=True), "abc"[label]))
    assert fitted_temperature(labelled) == pytest.approx(5.0, rel=0.25)


def test_a_temperature_is_found_where_posteriors_are_too_small_for_a_float():
    scores = Scores({"a": 0.0, "b": -5000.0}, log=True)
    labelled = [(scores, "a")] * 999 + [(scores, "b")]
    assert fitted_temperature(labelled) == pytest.approx(5000.0 / math.log(999.0), rel=1e-3)


def test_a_few_hopeless_queries_do_not_decide_on_a_temperature():
    sure, hopeless = Scores({"a": 0.0, "b": -3.0}, log=True), Scores({"a": -1e6, "b": 0.0}, log=True)
    labelled = [(sure, "a")] * 19 + [(sure, "b"), (hopeless, "a")]
    assert fitted_temperature(labelled) == pytest.approx(3.0 / math.log(19.0), rel=0.05)


def test_the_null_hypothesis_takes_its_share():
    found, none = confidences(Scores({"a": 0.0, "b": math.log(2.0)}, log=True, null=0.0), None)
    assert found == {"a": pytest.approx(0.2), "b": pytest.approx(0.4)}
    assert none == pytest.approx(0.4), "its prior is that of both together"


@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_before_anything_is_seen_somebody_known_is_as_likely_as_nobody(temperature):
    alike = Scores(dict.fromkeys("abcdefg", 3.0), log=True, null=3.0)
    assert confidences(alike, temperature)[1] == pytest.approx(0.5)


# ---- likelihood

LAYER = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def speakers(tmp_path_factory):
    """A model, and adapters that each make it prefer other tokens."""
    folder = tmp_path_factory.mktemp("speakers")
    for seed, name in enumerate(["amy", "bob", "cyd"]):
        draw = torch.Generator().manual_seed(seed)
        pair = (torch.randn(2, 48, generator=draw), torch.randn(32, 2, generator=draw))
        write_peft(folder / name, LoRA.of({LAYER: pair}, alpha=2.0), base_model=None)
    manager = AdapterManager(tiny(), AdapterRegistry(folder, max_loaded=3))
    for name in ("amy", "bob", "cyd"):
        manager.load(name)
    return manager, AdapterRegistry(folder), build_nano_tokenizer()


@torch.no_grad()
def spoken(manager, name, count=6, length=8):
    """Answers drawn token by token from the model under an adapter (None: the base), as `Likelihood.prepare` has them."""
    draw = torch.Generator().manual_seed(4)
    found = []
    with manager.serving({} if name is None else {name: 1.0}):
        for i in range(count):
            ids = [20 + i, 30, 40]
            for _ in range(length):
                chances = manager.model(torch.tensor([ids])).logits[0, -1].softmax(-1)
                ids.append(int(torch.multinomial(chances, 1, generator=draw)))
            found.append((ids, 3))
    return found


def plain_log_likelihood(manager, tokenizer, name, seen):
    """One pass a decision, with the whole vocabulary at every position."""
    total = 0.0
    for prompt, answer in seen:
        begin = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        ids = [*begin, *tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad(), manager.serving({} if name is None else {name: 1.0}):
            logits = manager.model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
        total += sum(float(logits[i - 1, ids[i]]) for i in range(len(begin), len(ids)))
    return total


def test_likelihoods_are_those_of_one_pass_each(speakers):
    manager, _, tokenizer = speakers
    seen = [("<TURN> 1 / 20\n<OUTPUT>\n", "OFFER 0.1000"), ("<TURN> 12 / 20\n<RHO> 0.5\n<OUTPUT>\n", "ACCEPT")]
    names = ["amy", None, "bob"]
    want = [plain_log_likelihood(manager, tokenizer, name, seen) for name in names]
    assert max(want) - min(want) > 0.1
    for batch_rows in (1, 4, 64):
        likelihood = Likelihood(manager, tokenizer, batch_rows=batch_rows)
        assert likelihood.log_likelihoods(likelihood.prepare(seen), names) == pytest.approx(want, abs=1e-4)


@pytest.mark.parametrize("speaker", ["amy", "bob", "cyd", None])
def test_who_spoke_is_found_and_nobody_where_the_base_did(speakers, speaker):
    manager, registry, tokenizer = speakers
    scorer = Likelihood(manager, tokenizer)
    prepared = spoken(manager, speaker)
    scores = scorer.scores(prepared, registry.list_adapters())
    posterior, none = confidences(scores, None)
    assert none + sum(posterior.values()) == pytest.approx(1.0)
    assert (none if speaker is None else posterior[speaker]) > 0.9
    scorer.prepare = lambda query: prepared  # tokens that were drawn are no text
    router = AdapterRouter(registry, method="likelihood", scorer=scorer)
    route = router.select("what was drawn", top_k=3)
    assert route == router.select("what was drawn", top_k=3)
    assert [name for name, _ in route[:1]] == ([] if speaker is None else [speaker])
    doubtful = Likelihood(manager, tokenizer, null_prior=1e300)
    doubtful.prepare = scorer.prepare
    assert AdapterRouter(registry, method="likelihood", scorer=doubtful).select("what was drawn") == []


def test_a_pooled_adapter_may_be_the_null_hypothesis(speakers):
    manager, registry, tokenizer = speakers
    scorer = Likelihood(manager, tokenizer, null="bob")
    scores = scorer.scores(spoken(manager, "bob"), registry.list_adapters())
    assert set(scores.values) == {"amy", "cyd"}
    assert scores.null > max(scores.values.values())
    prepared = spoken(manager, "bob")
    behind = Likelihood(manager, tokenizer, null="bob", handicap=0.5).scores(prepared, registry.list_adapters())
    assert behind.null == pytest.approx(scores.null - 0.5 * len(prepared))
    assert behind.values == scores.values
    with pytest.raises(InputError, match="handicap"):
        Likelihood(manager, tokenizer, handicap=-1.0)


def test_without_evidence_the_router_abstains(speakers):
    manager, registry, tokenizer = speakers
    assert AdapterRouter(registry, method="likelihood", scorer=Likelihood(manager, tokenizer)).select([]) == []


def test_the_prior_counts(speakers):
    manager, registry, tokenizer = speakers
    seen = [("<OUTPUT>\n", "ACCEPT")]
    found = []
    for prior in ({}, {"amy": 1e6}):
        scorer = Likelihood(manager, tokenizer, prior=prior)
        found.append(scorer.scores(scorer.prepare(seen), registry.list_adapters()).values)
    assert found[1]["amy"] - found[0]["amy"] == pytest.approx(math.log(1e6))
    assert found[1]["bob"] == pytest.approx(found[0]["bob"])


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda r: AdapterRouter(r, method="keywords"), "did you mean 'keyword'"),
        (lambda r: AdapterRouter(r, method="likelihood"), "scorer=Likelihood"),
        (lambda r: AdapterRouter(r, Later(), method="keyword"), "of no use"),
        (lambda r: AdapterRouter(r, threshold=1.5), r"must lie in \[0, 1\]"),
        (lambda r: AdapterRouter(r).select("x", top_k=0), "top_k 0"),
        (lambda r: AdapterRouter(r, method="keyword").select(["x"]), "reads text"),
        (lambda r: AdapterRouter(r, method="keyword").learn({"a": ["x"]}), "learns no centroids"),
        (lambda r: AdapterRouter(r).learn({"a": ["x"]}), "two adapters"),
        (lambda r: Embeddings(OfferFeatures(), novelty=0.0), "novelty"),
    ],
)
def test_what_makes_no_sense_is_refused(domains, make, reason):
    with pytest.raises(InputError, match=reason):
        make(domains)


def test_without_adapters_nothing_is_chosen(tmp_path):
    write(tmp_path / "elsewhere", "a", 1)
    for method in ("keyword", "embedding"):
        assert AdapterRouter(AdapterRegistry(tmp_path / "none"), method=method).select("doctor") == []
