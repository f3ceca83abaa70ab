"""Our ingress beside other ingress controllers' proxies: same Ingresses, same client, same backends, one run."""
