"""Faults in the Makefile, the Compose file and the page."""

from faults.fault import faults


FAULTS = [
    *faults(
        "publish", "examples/ecr/Makefile",
        ("the password is an argument",
         "aws ecr get-login-password | docker login --username AWS --password-stdin '$(REGISTRY)'",
         "docker login --username AWS --password \"$$(aws ecr get-login-password)\" '$(REGISTRY)'"),
        ("the password is printed", "aws ecr get-login-password | docker", "aws ecr get-login-password | tee /dev/stderr | docker"),
        ("a token that failed is no error", ".SHELLFLAGS := -euo pipefail -c", ".SHELLFLAGS := -eu -c"),
        ("another user", "--username AWS", "--username aws"),
        ("out of Docker Hub", "docker logout '$(REGISTRY)'", "docker logout"),
        ("latest first",
         "\tdocker push '$(IMAGE):$(VERSION)'\n\tdocker push '$(IMAGE):latest'\n",
         "\tdocker push '$(IMAGE):latest'\n\tdocker push '$(IMAGE):$(VERSION)'\n"),
        ("only latest", "\tdocker push '$(IMAGE):$(VERSION)'\n", ""),
        ("a push that failed is no error", "\tdocker push '$(IMAGE):$(VERSION)'\n", "\t-docker push '$(IMAGE):$(VERSION)'\n"),
        ("no build before the push", "publish: build\n\tdocker", "publish:\n\tdocker"),
        ("the version is a date", "git describe --always --dirty --exclude '*')\nexport IMAGE", "date +%s)\nexport IMAGE"),
        ("a given registry is ignored", "$(or $(REGISTRY),$(shell", "$(or $(shell"),
        ("no word about a missing repository", "$(if $(REGISTRY),,$(error", "$(if true,,$(error"),
        ("Compose without the image", "export IMAGE := ", "IMAGE := "),
        ("Compose does not build", "compose-publish: compose-build\n", "compose-publish:\n"),
        ("only the plugin", "&& echo docker compose || echo docker-compose)", "; echo docker compose)"),
    ),
    *faults(
        "publish", "examples/ecr/compose.yaml",
        ("the second service has a build of its own", "    extends:\n      service: hello\n", "    build: image\n"),
        ("the second service has the tag of the first", "${IMAGE}:${VERSION:?git describe --always --dirty}", "${IMAGE}:latest"),
        ("a build that is not there", "build: image\n", "build: images\n"),
    ),
    *faults(
        "page", "examples/ecr/README.md",
        ("the password is an argument",
         "aws ecr get-login-password | docker login --username AWS --password-stdin",
         "docker login --username AWS --password $(aws ecr get-login-password)"),
        ("an option that aws does not have", "aws ecr create-repository --repository-name", "aws ecr create-repository --name"),
        ("a file that is not there",
         "put-lifecycle-policy --repository-name docker-in-aws/hello --lifecycle-policy-text file://examples/ecr/lifecycle.json",
         "put-lifecycle-policy --repository-name docker-in-aws/hello --lifecycle-policy-text file://examples/ecr/expire.json"),
        ("a parameter that the template does not have", "hello PullAccounts=333333444444\n", "hello Accounts=333333444444\n"),
        ("a target that make does not have", "make -C examples/ecr login publish logout", "make -C examples/ecr login push logout"),
    ),
]
