"""Episodes that nobody played: tables of `experiments.match.results.SCHEMA` with answers that are known beforehand."""

import numpy as np
import pyarrow as pa

from experiments.match import results

SEATS = ("buyer", "seller")


def table(games):
    """Rows from arrays of equal length, by column name, the rest filled in: ``agent``, ``agent_seat``, ``opponent`` and
    ``scenario_id`` are needed, and ``rho_achieved`` (NaN: no deal). ZOPAs are 500 wide unless ``width`` says otherwise;
    without a ZOPA ``deal`` says whether there was a deal all the same.
    """
    n = len(games["scenario_id"])
    width = np.asarray(games.get("width", np.full(n, 500.0)))
    rho = np.asarray(games["rho_achieved"], dtype=float)
    deal = np.asarray(games.get("deal", ~np.isnan(rho)))
    seller = np.asarray(games["agent_seat"]) == "seller"
    own = np.nan_to_num(np.where(seller, rho, 1.0 - rho))
    low = 400.0 + np.asarray(games["scenario_id"]) % 7
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(n + 1, np.int32)), pa.array([], pa.float64()))
    columns = {
        "episode_id": [str(i) for i in range(n)],
        "rho_requested": _nullable(games.get("rho_requested", np.full(n, np.nan))),
        "opponent_split": games.get("opponent_split", ["train"] * n),
        "seed": np.zeros(n, np.int64),
        "starter": games.get("starter", ["buyer"] * n),
        "buyer_max": low + width,
        "seller_min": low,
        "agreement": deal,
        "price": _nullable(np.where(deal, low + np.nan_to_num(rho) * width, np.nan)),
        "rho_achieved": _nullable(rho),
        "utility": games.get("utility", own),
        "opponent_utility": games.get("opponent_utility", np.where(np.isnan(rho), 0.0, 1.0 - own)),
        "turns": games.get("turns", np.full(n, 4)),
        "outcome": np.where(deal, "deal", "deadline"),
        **{name: games.get(name, np.zeros(n)) for name in ("invalid_moves", "guard_moves", "fallback_moves")},
        "offers": empty,
        "offer_turns": empty,
        **{name: games[name] for name in ("agent", "agent_seat", "opponent", "scenario_id")},
    }
    return pa.table(
        [
            pa.nulls(n, field.type) if field.name not in columns else _array(columns[field.name], field.type)
            for field in results.SCHEMA
        ],
        schema=results.SCHEMA,
    )


def _array(values, kind):
    return values.cast(kind) if isinstance(values, pa.Array) else pa.array(np.asarray(values)).cast(kind)


def _nullable(values):
    values = np.asarray(values, dtype=float)
    return pa.array(values, mask=np.isnan(values))


def crossed(**levels):
    """Arrays of all combinations of the levels, the last one fastest."""
    grids = np.meshgrid(*(np.arange(len(values)) for values in levels.values()), indexing="ij")
    return {name: np.array(values)[grid.ravel()] for (name, values), grid in zip(levels.items(), grids, strict=True)}


def dial_games(settle, *, agent="dial", rho=(0.0, 0.25, 0.5, 0.75, 1.0), opponents=("a", "b"), scenarios=30):
    """Games of one dial at both seats; ``settle(games) -> rho_achieved``."""
    games = crossed(
        agent=[agent], agent_seat=SEATS, rho_requested=rho, opponent=opponents, scenario_id=range(scenarios)
    )
    games["rho_achieved"] = settle(games)
    return games


def joined(*parts):
    """Several lists of games as one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
