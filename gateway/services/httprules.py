"""google.api.http annotations: at which paths a method wants to be served, besides its own.

Source: google/api/http.proto (HttpRule). templates.py reads the paths, routes.py finds a method by one.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule as HttpRuleProto
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions


@dataclass(frozen=True)
class HttpRule:
    """`method` is GET, PUT, POST, DELETE, PATCH or a custom one (`*`: any); `template` the path as it was written.

    `body` is `*` (the whole message), a field's name, or empty: there is no body. `response_body` is the field that is
    answered, empty: the whole message.
    """

    method: str
    template: str
    body: str
    response_body: str


def rules_of(method: MethodDescriptor) -> tuple[HttpRule, ...]:
    """Return a method's rules, the additional bindings behind the first; none where it isn't annotated."""
    # The method's options are of its own pool's making; only the default pool's have the extension.
    options = MethodOptions.FromString(method.GetOptions().SerializeToString())
    if not options.HasExtension(annotations_pb2.http):
        return ()
    rule = options.Extensions[annotations_pb2.http]
    return tuple(_rule(part) for part in (rule, *rule.additional_bindings) if part.WhichOneof("pattern"))


def _rule(rule: HttpRuleProto) -> HttpRule:
    pattern = rule.WhichOneof("pattern")
    if pattern == "custom":
        return HttpRule(rule.custom.kind.upper(), rule.custom.path, rule.body, rule.response_body)
    return HttpRule(pattern.upper(), getattr(rule, pattern), rule.body, rule.response_body)
