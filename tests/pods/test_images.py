"""Which workload runs for an image, and what it makes of the container's command line."""

import pytest

from plane.addresses import AddressPlan
from plane.pods import images
from plane.pods.flags import Flags
from plane.pods.spec import ContainerSpec, StartError
from tests.pods.hosting import AGNHOST, container, pod_object

PLAN = AddressPlan()
DIGEST = "@sha256:" + "0" * 64


def spec(*containers, index=0, **fields):
    return ContainerSpec(pod_object("127.244.1.2", *containers, **fields), containers[index], PLAN)


@pytest.mark.parametrize(
    ("image", "repository"),
    [
        ("nginx", "library/nginx"),
        ("nginx:1.27-alpine", "library/nginx"),
        ("docker.io/library/nginx:1.27" + DIGEST, "library/nginx"),
        ("localhost:5000/mirror/traefik/whoami", "mirror/traefik/whoami"),
        ("registry.k8s.io/pause:3.10", "library/pause"),
        ("traefik/whoami", "traefik/whoami"),
        ("example.com:443/a/b/c:v1", "a/b/c"),
    ],
)
def test_repository_is_the_image_without_registry_tag_and_digest(image, repository):
    assert images.repository(image) == repository


@pytest.mark.parametrize(
    "image",
    [
        "registry.k8s.io/e2e-test-images/agnhost:2.53",
        "k8s.gcr.io/e2e-test-images/agnhost",
        "localhost:5000/e2e-test-images/agnhost:2.47" + DIGEST,
        "traefik/whoami",
        "ghcr.io/traefik/whoami:latest",
        "hashicorp/http-echo:0.2.3",
        "nginx:1.14.2",
        "registry.k8s.io/nginx-slim:0.24",
        "registry.k8s.io/pause:3.9",
        "trafficplane/responder",
        "trafficplane/echo",
        "registry.k8s.io/ingressconformance/echoserver:v0.0.1",
        "k8s.gcr.io/ingressconformance/echoserver@sha256:9b34b17f391f87fb2155f01da2f2f90b7a4a5c1110ed84cb5379faa4f570dc52",
        "gcr.io/k8s-staging-ingressconformance/echoserver:v20221109",
        "gcr.io/k8s-staging-gateway-api/echo-basic:v20240412",
    ],
)
def test_built_in_images_are_known(image):
    assert images.known(image)


@pytest.mark.parametrize(
    "image", ["httpd", "me/nginx", "mynginx", "nginx-exporter", "e2e-test-images/agnhost2", "redis:7"]
)
def test_other_images_are_not_known(image):
    assert not images.known(image)


def test_arguments_follow_the_program_and_have_variables_expanded():
    row = container(AGNHOST, env={"PORT": "8088"}, args=["netexec", "--http-port=$(PORT)", "$$(PORT)"])
    assert spec(row).arguments("agnhost") == ["netexec", "--http-port=8088", "$(PORT)"]
    row = container(AGNHOST, command=["/agnhost", "netexec"], args=["--http-port=80"])
    assert spec(row).arguments("agnhost") == ["netexec", "--http-port=80"]


def test_a_command_that_is_not_the_image_s_program_is_refused_by_name():
    row = container(AGNHOST, command=["sh", "-c"], args=["sleep 1"])
    with pytest.raises(StartError, match='command "sh" is no program the plane can run'):
        images.workload(spec(row))


def test_only_the_first_container_is_the_annotated_app():
    rows = container("any"), container("nginx", name="second")
    assert [spec(*rows, index=index, app="shop:app").app for index in (0, 1)] == ["shop:app", ""]


@pytest.mark.parametrize(
    ("arguments", "port", "loud"),
    [
        (["--port=9", "--loud"], 9, True),
        (["-port", "9"], 9, False),
        (["--loud=false", "--port", "9"], 9, False),
        ([], 7, False),
    ],
)
def test_flags_are_read_as_go_reads_them(arguments, port, loud):
    flags = Flags("program", arguments, {"port": "7", "loud": "false"}, switches=["loud"])
    assert (flags.port("port"), flags.switch("loud")) == (port, loud)


@pytest.mark.parametrize(
    ("image", "args", "said"),
    [
        (AGNHOST, ["connect", "10.0.0.1:80"], 'agnhost: "connect" is not run by the plane'),
        (AGNHOST, ["netexec", "--tls-cert-file=/x"], '"--tls-cert-file=/x" is not one'),
        (AGNHOST, ["netexec", "--http-port"], '"--http-port" needs a value'),
        (AGNHOST, ["netexec", "--http-port=web"], '--http-port "web" is no whole number'),
        (AGNHOST, ["netexec", "--http-port=70000"], "--http-port 70000 is no port"),
        (AGNHOST, ["netexec", "--http-override=echo"], '--http-override "echo" is no path'),
        (AGNHOST, ["serve-hostname", "--udp=perhaps"], '--udp "perhaps" is neither true nor false'),
        ("traefik/whoami", ["--cert=/x"], '"--cert=/x" is not one'),
        ("trafficplane/responder", ["--port", "80", "--size", "0"], None),
        ("trafficplane/responder", ["--size", "-1"], "--size -1 is no size, choose 0 to 16777216"),
        ("trafficplane/responder", ["--port", "x"], '--port "x" is no whole number'),
        ("trafficplane/echo", [], "echo: listens on the ports that are declared"),
        ("trafficplane/echo", ["--port"], "echo: --port is no flag of it"),
        ("hashicorp/http-echo", [], "there is no text"),
        ("hashicorp/http-echo", ["-text=a", "-listen=5678"], None),
        ("hashicorp/http-echo", ["-text=a", "-listen=:http"], '-listen ":http" has no port'),
        ("hashicorp/http-echo", ["-text=a", "-status-code=99"], "-status-code 99 is no status code"),
        ("hashicorp/http-echo", ["-text=a", "more"], '"more" is not one'),
    ],
)
def test_an_argument_that_cannot_be_served_is_named(image, args, said):
    row = container(image, args=args)
    if said is None:
        assert images.workload(spec(row)).servers
        return
    with pytest.raises(StartError) as caught:
        images.workload(spec(row))
    assert said in str(caught.value)
