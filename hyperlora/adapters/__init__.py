"""Plain LoRA adapters in number: a store of versions, a registry, a manager that serves them, a router that chooses.

>>> registry = AdapterRegistry("adapters", max_loaded=3)
>>> manager = AdapterManager(model, registry)
>>> manager.load("firm_buyers")
>>> with manager.serving():
...     model(input_ids)
"""

from .bus import DynamicLoRA, InjectionChannel, MemoryBus, setup_weight_interface
from .embedding import Embeddings, HashedNgrams
from .errors import NoRoom, ServerError
from .hypernetwork import HyperNetwork
from .keywords import Keywords
from .likelihood_method import Likelihood
from .manager import AdapterManager
from .offer_embedding import OfferEmbedding
from .offer_features import OfferFeatures, OfferHistory
from .peft_folder import LoRA, read_peft, write_peft
from .registry import AdapterRegistry
from .router import AdapterRouter
from .rows import bind_adapters, inject_rows
from .spec import AdapterSpec
from .store import AdapterStore
from .weights import AdapterWeights

__all__ = [
    "AdapterManager",
    "AdapterRegistry",
    "AdapterRouter",
    "AdapterSpec",
    "AdapterStore",
    "AdapterWeights",
    "DynamicLoRA",
    "Embeddings",
    "HashedNgrams",
    "HyperNetwork",
    "InjectionChannel",
    "Keywords",
    "Likelihood",
    "LoRA",
    "MemoryBus",
    "NoRoom",
    "OfferEmbedding",
    "OfferFeatures",
    "OfferHistory",
    "ServerError",
    "bind_adapters",
    "inject_rows",
    "read_peft",
    "setup_weight_interface",
    "write_peft",
]
