"""Contexts of the bandit from configuration."""

from __future__ import annotations

from laser.bandits.context import ContextPreparer
from laser.config import RouterConfig, RunConfig, schema
from laser.core.errors import ConfigError
from laser.lm.sources import choose_device, choose_dtype, load_encoder, load_tokenizer
from laser.rewards.embedding import TextEncoder
from laser.training.embedders import CategoryEmbedder, ConstantEmbedder, Embedder, SentenceEmbedder


def build_contexts(config: RunConfig | RouterConfig, *, dim: int) -> ContextPreparer:
    """Make the context preparer for embeddings of `dim` features."""
    section = config.context
    return ContextPreparer(
        dim,
        normalization=section.normalization,
        scale=section.scale,
        projection=section.projection,
        seed=config.seed,
    )


def build_embedder(section: schema.ContextConfig, policy: Embedder | None = None) -> Embedder:
    """Make what turns prompts into embeddings.

    Raises:
        ConfigError: The source is the policy, and there is none.
        ModelError: The text encoder cannot be loaded.
    """
    match section.source:
        case "policy":
            if policy is None:
                raise ConfigError("context.source = 'policy' needs a policy; set it to 'encoder', 'category' or 'none'")
            return policy
        case "encoder":
            return _sentence_embedder(section.encoder or "")
        case "category":
            return CategoryEmbedder(section.categories or ())
        case "none":
            return ConstantEmbedder()


def _sentence_embedder(source: str) -> SentenceEmbedder:
    device = choose_device("auto")
    model = load_encoder(source, device=device, dtype=choose_dtype("fp32", device))
    encoder = TextEncoder(model, load_tokenizer(source), cut=True)
    return SentenceEmbedder(encoder, int(model.config.get_text_config().hidden_size))
