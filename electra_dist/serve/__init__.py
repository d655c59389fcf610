"""Answers over HTTP with any model that `electra-dist predict` reads.

Comes in: the folder of a model, or several as one ensemble. Goes out: a server with `/predict`,
`/health`, `/metrics`, a page to try the model in a browser, and the pages of OpenAPI.

    server.py    the command's work: load, bind, run, end
    app.py       the routes
    body.py      what a request may hold
    batching.py  the queue, and the thread on which the model answers
    answers.py   one model or an ensemble
    schema.py    the inputs of each task as a JSON schema
    counts.py    the figures of `/metrics`
    page/        the form for a browser
"""

__all__ = ["answers", "schema", "server", "settings"]
