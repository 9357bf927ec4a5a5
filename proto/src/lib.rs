//! Wire contract of Fedveil: gRPC services, generated code, limits, framing, join tokens
