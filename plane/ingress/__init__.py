"""HTTP and HTTPS in, straight to endpoints; ``README.md`` has the picture."""
