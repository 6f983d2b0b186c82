"""A local page that restores photographs and shows why the routers decided as they did."""
