"""Says on one screen what a stranger can do with a server that other machines can reach."""

from __future__ import annotations

from seg_runtime.server.options import ServerOptions

__all__ = ["describe_exposure", "is_local"]


def is_local(host: str) -> bool:
    """Whether only this machine can connect to an address that is listened on."""
    return host.startswith("127.") or host in ("::1", "localhost")


def describe_exposure(options: ServerOptions) -> str:
    """Lines of at most 80 characters; empty for a server on localhost."""
    if is_local(options.host):
        return ""
    who = "who sends the API key" if options.api_key else "ANYONE who reaches it"
    tls = options.tls
    if tls and tls.client_ca:
        who = "who has a certificate of your CA" + (" and the API key" if options.api_key else "")
    protocols = "gRPC" if tls else "gRPC and HTTP"
    lines = [
        f"This server listens on {options.host}: other machines can reach it over {protocols}.",
        f"  runs models for    {who}",
        "  shows names, configurations, statistics and index of its models",
        f"                     to {who}",
        "  health             to ANYONE who reaches it: whether it and a model are ready",
        *_metrics(options),
        *_closed(options),
        *_encryption(options),
    ]
    return "\n".join([*lines, *_advice(options)])


def _metrics(options: ServerOptions) -> list[str]:
    if is_local(options.metrics_host):
        return ["  metrics            to this machine only"]
    return ["  metrics            to ANYONE who reaches it: names of models, counts and times"]


def _closed(options: ServerOptions) -> list[str]:
    loading = "only with the secret of this start" if options.model_control == "explicit" else "to nobody"
    memory = "only for the user who started it, on this machine" if options.client_shared_memory else "off"
    return [
        f"  loads, unloads     {loading}",
        f"  shared memory      {memory}",
        "  logs, traces       settings are closed to strangers",
    ]


def _encryption(options: ServerOptions) -> list[str]:
    if options.tls:
        return [
            "  encryption         gRPC with TLS; HTTP and metrics stay on this machine",
        ]
    return ["  encryption         NONE: images, masks and keys can be read on the way"]


def _advice(options: ServerOptions) -> list[str]:
    advice = []
    if not options.api_key and not (options.tls and options.tls.client_ca):
        advice.append("  --api-key-file FILE lets in only those who have the key")
    if not options.tls:
        advice.append("  --tls-cert FILE --tls-key FILE encrypts gRPC; HTTP needs a proxy with TLS")
    if not advice:
        return []
    return [
        "To close it:",
        *advice,
        "  --host 127.0.0.1 keeps it to this machine; a firewall to machines you choose",
        "See docs/serving.md, 'Who may do what'.",
    ]
