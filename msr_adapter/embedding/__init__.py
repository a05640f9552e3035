"""Items and users as vectors: what is embedded, by whom, and the table that it is kept in.

- `item_content`: title, image and summary of items as what a model is given
- `embedder`: texts and images to vectors of length 1, each computed once: through the completion cache
- `sentence_model`: a sentence-transformers model, `model_folder`: where it is; `hidden_states`: the run's own model
- `catalogue_vectors`: all items of a catalogue
- `vector_text`: a vector as the text of a completion
- `embedding_table`: vectors as a table on disk
"""

from msr_adapter.embedding.catalogue_vectors import Catalogue, embed_catalogue
from msr_adapter.embedding.embedder import Embedder
from msr_adapter.embedding.embedding_table import EmbeddedRows, read_vectors, write_embeddings
from msr_adapter.embedding.item_content import user_text

__all__ = [
    "Catalogue",
    "EmbeddedRows",
    "Embedder",
    "embed_catalogue",
    "read_vectors",
    "user_text",
    "write_embeddings",
]
