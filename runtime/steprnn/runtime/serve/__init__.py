"""A server of the OpenAI completions protocol, whose requests share one batch; needs the extra `serve`."""
