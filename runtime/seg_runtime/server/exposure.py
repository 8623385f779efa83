"""Says on one screen what a stranger can do with a server that other machines can reach."""

from __future__ import annotations

from seg_runtime.server.options import ServerOptions

__all__ = ["describe_exposure", "is_local"]


def is_local(host: str) -> bool:
    """Whether only this machine can connect to an address that is listened on."""
    return host.startswith("127.") or host in ("::1", "localhost")


def describe_exposure(options: ServerOptions) -> str:
    """Who may do what, in lines of at most 80 characters; empty for a server on localhost."""
    if is_local(options.host):
        return ""
    protocols = "gRPC" if options.tls else "gRPC and HTTP"
    table = [f"  {what:36}{who}" for what, who in _rights(options).items()]
    return "\n".join(
        [
            f"Other machines can reach this server at {options.host}, over {protocols}:",
            *table,
            *_advice(options),
        ]
    )


def _rights(options: ServerOptions) -> dict[str, str]:
    certified = options.tls is not None and options.tls.client_ca is not None
    reached = "clients with a certificate" if certified else "ANYONE"
    admitted = "clients with the API key" if options.api_key else reached
    explicit = options.model_control == "explicit"
    memory = "this user's clients on this machine"
    return {
        "run models": admitted,
        "read configurations and statistics": admitted,
        "ask whether models are ready": reached,
        "read metrics": "this machine only" if is_local(options.metrics_host) else "ANYONE",
        "load and unload models": "who has the secret of this start" if explicit else "nobody",
        "use shared memory": memory if options.client_shared_memory else "nobody",
        "change log and trace settings": "who has the secret of this start",
        "encryption": "TLS" if options.tls else "NONE: images and keys can be read",
    }


def _advice(options: ServerOptions) -> list[str]:
    advice = ["  --host 127.0.0.1                    keeps it to this machine"]
    if not options.tls:
        advice.insert(0, "  --tls-cert FILE --tls-key FILE      encrypts gRPC; HTTP needs a proxy")
    if not options.api_key:
        advice.insert(0, "  --api-key-file FILE                 lets in only clients with that key")
    return ["To close it further (docs/serving.md, 'Who may do what'):", *advice]
