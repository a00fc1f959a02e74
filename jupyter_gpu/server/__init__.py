"""How clients see it: REST, events and metrics."""
