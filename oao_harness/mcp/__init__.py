"""The MCP proxy: policy and journal in front of any MCP server, at the level of JSON-RPC."""
