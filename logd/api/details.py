"""What `logs --details` shows of a container: the labels, variables and tag that its log-opts choose.

Source: https://docs.docker.com/engine/logging/log_tags/ and the log-opts labels, labels-regex, env, env-regex.
"""

from logd.container import Container
from logd.driver import CommonOptions, log_opts, parse_options


def details(container: Container) -> dict[str, str]:
    """Return the pairs. Log-opts that are for one of several drivers (`audit:tag`) don't count."""
    asked = container.host.log_config.config
    known = {name: asked[name] for name in log_opts(CommonOptions) if name in asked}
    options = parse_options("log driver", CommonOptions, known)
    info = container.info()
    chosen = options.attributes.of(info)
    if options.tag:
        chosen["tag"] = options.tag_of(info)
    return chosen
