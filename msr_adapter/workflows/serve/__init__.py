"""The trained model behind HTTP: recommendations, scores and a page for people.

- `workflow`: the command from end to end; `settings`: its options; `server`: uvicorn, and how it stops; `backlog`:
  clients that nobody has read yet
- `app`: the endpoints; `messages`: what they take; `resolve`: that against the data; `answers`: what they return
- `gate`: token, size and host of every request; `refusals`: errors in one shape; `serve_metrics`: for Prometheus;
  `strict_json`: bodies
- `served_data`: items and users in memory; `prompt_fields`: what templates say of them; `page`: the page for people
- `request_queue`: what waits; `engine`: the thread that answers it, batch by batch; `work`: what it is handed
- `live_summaries`, `live_truncation`, `live_scores`: histories to texts and pairs to scores, in memory
"""

from msr_adapter.workflows.serve.settings import Batching, RequestLimits, ServeSettings

__all__ = ["Batching", "RequestLimits", "ServeSettings"]
