"""Faults that somebody could make in the templates and scripts. Each is planted in a copy, and its group of checks must find it.

`old` occurs once in the file.
"""

from typing import NamedTuple


class Fault(NamedTuple):
    """One small edit that must not pass."""

    name: str
    group: str
    file: str
    old: str
    new: str


def faults(group, file, *edits):
    """Faults of one file that one group of checks must find: name, old text, new text."""
    return [Fault(name, group, file, old, new) for name, old, new in edits]


REPOSITORY = faults(
    "repository", "examples/ecr/repository.yaml",
    ("everybody may pull", "                  AWS: !Ref PullAccounts\n", '                  AWS: "*"\n'),
    ("other accounts may push", "                  - ecr:GetDownloadUrlForLayer\n              - !Ref AWS::NoValue\n            - !If\n",
     "                  - ecr:GetDownloadUrlForLayer\n                  - ecr:PutImage\n              - !Ref AWS::NoValue\n            - !If\n"),
    ("a reader may not get layers",
     "                  - ecr:BatchGetImage\n                  - ecr:GetDownloadUrlForLayer\n              - !Ref AWS::NoValue\n            - !If\n",
     "                  - ecr:BatchGetImage\n              - !Ref AWS::NoValue\n            - !If\n"),
    ("CodeBuild of every account", "                  StringEquals:\n                    aws:SourceAccount: !Ref AWS::AccountId\n", ""),
    ("every CodeBuild project", "project/${CodeBuildProject}", "project/*"),
    ("another service", "codebuild.amazonaws.com", "codepipeline.amazonaws.com"),
    ("an account id may be a wildcard", '"([0-9]{12})?"', '"([0-9*]{1,12})?"'),
    ("a project may be a wildcard", "[A-Za-z0-9][A-Za-z0-9_-]{1,254}", "[A-Za-z0-9*][A-Za-z0-9_*-]{0,254}"),
    ("tagged images expire", '"tagStatus": "untagged"', '"tagStatus": "any"'),
    ("the count is a number of images", '"countType": "sinceImagePushed"', '"countType": "imageCountMoreThan"'),
    ("the rule has another priority", '"rulePriority": 10', '"rulePriority": 1'),
    ("orphans stay 70 days", "    Default: 7\n", "    Default: 70\n"),
    ("the days are no parameter", '"countNumber": ${UntaggedDays}', '"countNumber": 7'),
    ("no scan on push", "ScanOnPush: true", "ScanOnPush: false"),
    ("all tags move", "    Default: IMMUTABLE_WITH_EXCLUSION\n", "    Default: MUTABLE\n"),
    ("every tag is an exception", "ImageTagMutabilityExclusionFilterValue: latest", 'ImageTagMutabilityExclusionFilterValue: "*"'),
    ("images go with the stack", "    DeletionPolicy: Retain\n", "    DeletionPolicy: Delete\n"),
    ("images go with a new name", "    UpdateReplacePolicy: Retain\n", ""),
    ("no day is a number of days", "    MinValue: 1\n", "    MinValue: 0\n"),
    ("capital letters in names", '"([a-z0-9]+([._-][a-z0-9]+)*/)*', '"([A-Za-z0-9]+([._-][a-z0-9]+)*/)*'),
    ("an empty policy without readers", "      RepositoryPolicyText: !If\n        - HasReaders\n", "      RepositoryPolicyText: !If\n        - HasOwner\n"),
) + faults(
    "repository", "examples/ecr/lifecycle.json",
    ("the file of the command line differs", '"countNumber": 7', '"countNumber": 14'),
) + faults(
    "deploy", "examples/ecr/repository.yaml",
    ("the lifecycle policy is no JSON", '"action": {"type": "expire"}', '"action": {"type": "expire"},'),
    ("an unknown tag status", '"tagStatus": "untagged"', '"tagStatus": "none"'),
    ("a policy without a version of policies", '        - Version: "2012-10-17"\n', '        - Version: "2012"\n'),
    ("the address is that of nothing", "Value: !GetAtt Repository.RepositoryUri", "Value: !Ref RepositoryName"),
)

BUCKET = faults(
    "repository", "examples/ec2/config-bucket.yaml",
    ("public lists", "BlockPublicAcls: true", "BlockPublicAcls: false"),
    ("public policies", "BlockPublicPolicy: true", "BlockPublicPolicy: false"),
    ("old public lists", "IgnorePublicAcls: true", "IgnorePublicAcls: false"),
    ("old public policies", "RestrictPublicBuckets: true", "RestrictPublicBuckets: false"),
    ("no versions", "      VersioningConfiguration:\n        Status: Enabled\n", "      VersioningConfiguration:\n        Status: Suspended\n"),
    ("old passwords stay", "          - Id: old-versions\n            Status: Enabled\n", "          - Id: old-versions\n            Status: Disabled\n"),
    ("access control lists", "BucketOwnerEnforced", "ObjectWriter"),
    ("without TLS", "            Condition:\n              Bool:\n                aws:SecureTransport: \"false\"\n",
     "            Condition:\n              Bool:\n                aws:SecureTransport: \"true\"\n"),
    ("TLS for objects only", "              - !GetAtt Bucket.Arn\n", ""),
    ("TLS for the bucket only", '              - !Sub "${Bucket.Arn}/*"\n', ""),
    ("a policy that allows", "            Effect: Deny\n", "            Effect: Allow\n"),
    ("the bucket goes with the stack", "    DeletionPolicy: Retain\n", ""),
)

ROLE = faults(
    "policies", "examples/ec2/instance-role.yaml",
    ("every repository", "            Resource: !Ref RepositoryArn\n", '            Resource: "*"\n'),
    ("every repository by a parameter", "repository/[a-z0-9._/-]+", "repository/[a-z0-9._/*-]+"),
    ("every action of ECR", "              - ecr:BatchGetImage  #", "              - ecr:*  #"),
    ("instances may push", "              - ecr:GetDownloadUrlForLayer  #", "              - ecr:PutImage  # `fromImage` in src/docker/images/pull.rs\n"
     "              - ecr:GetDownloadUrlForLayer  #"),
    ("every cluster", 'Resource: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:cluster/${ClusterName}"', 'Resource: "*"'),
    ("a cluster by a wildcard", '    AllowedPattern: "[A-Za-z0-9_-]{1,255}"', '    AllowedPattern: "[A-Za-z0-9_*-]{1,255}"'),
    ("no token", "              - ecr:GetAuthorizationToken  # `get_authorization_token()` in src/aws/services/ecr.rs\n"
     "            # A token is for a whole registry: the call has no resource.\n            Resource: \"*\"\n",
     "              - ecr:GetAuthorizationToken  # `get_authorization_token()` in src/aws/services/ecr.rs\n            Resource: !Ref RepositoryArn\n"),
    ("messages of every cluster", "              - ecs:Poll  # the websocket from which tasks come: `sendCredentials` in src/acs/session.rs\n"
     '            Resource: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:container-instance/${ClusterName}/*"\n'
     "            Condition:\n              ArnEquals:\n"
     '                ecs:cluster: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:cluster/${ClusterName}"\n',
     "              - ecs:Poll  # the websocket from which tasks come: `sendCredentials` in src/acs/session.rs\n"
     '            Resource: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:container-instance/*"\n'),
    ("reports are forgotten", "              - ecs:SubmitTaskStateChange  # `submit_task_state_change()` in src/ecs/report.rs\n", ""),
    ("the whole bucket", "/ecs.config\"", "/*\""),
    ("a bucket of anybody", "            Condition:\n              StringEquals:\n                aws:ResourceAccount: !Ref AWS::AccountId\n", ""),
    ("every log group", "log-group:${LogGroup}:*", "log-group:*"),
    ("a log group's namesakes", "log-group:${LogGroup}:*", "log-group:${LogGroup}*"),
    ("logs without the feature", "    Condition: HasLogGroup\n", ""),
    ("tags at any time", "            Condition:\n              StringEquals:\n                ecs:CreateAction: RegisterContainerInstance\n", ""),
    ("draining is always allowed", "    Condition: DrainsSpot\n", ""),
    ("another action in the place of one", "              - logs:PutLogEvents  #", "              - logs:PutLogEvent  #"),
    ("a right that nothing uses", "              - ec2:DescribeTags  #", "              - ec2:DescribeInstances  # `DescribeTags` in src/aws/identity/tags.rs\n"
     "              - ec2:DescribeTags  #"),
    ("an action without its call", "  # `DescribeTags` in src/aws/identity/tags.rs", ""),
    ("a call that is not in the source", "`submit_task_state_change()`", "`submit_container_state_change()`"),
    ("a file that does not exist", "src/ecs/drain.rs", "src/ecs/draining.rs"),
    ("another service may use the role", "ec2.amazonaws.com", "ecs-tasks.amazonaws.com"),
    ("a condition that the call does not have", "ecs:CreateAction: RegisterContainerInstance", "ecs:CreateActions: RegisterContainerInstance"),
)

TASK = faults(
    "policies", "examples/ec2/execution-role.yaml",
    ("ECS of every account", "              StringEquals:\n                aws:SourceAccount: !Ref AWS::AccountId\n              ArnLike:\n", "              ArnLike:\n"),
    ("resources of every account", "                aws:SourceArn: !Sub \"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:*\"\n",
     "                aws:SourceArn: !Sub \"arn:${AWS::Partition}:ecs:${AWS::Region}:*:*\"\n"),
    ("no condition of trust", "              ArnLike:\n                aws:SourceArn: !Sub \"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:*\"\n", ""),
    ("another service may use the role", "ecs-tasks.amazonaws.com", "ec2.amazonaws.com"),
    ("every repository", "            Resource: !Ref RepositoryArn\n", '            Resource: "*"\n'),
    ("every parameter", "parameter/${Parameters}/*", "parameter/*"),
    ("a parameter's namesakes", "parameter/${Parameters}/*", "parameter/${Parameters}*"),
    ("every secret", "secret:${Secrets}/*", "secret:*"),
    ("every key", "            Resource: !Ref KeyArn\n", '            Resource: "*"\n'),
    ("a key for everything", "                kms:ViaService:\n", "                kms:CallerAccount:\n"),
    ("a folder's namesakes", "${EnvironmentFiles}/*", "${EnvironmentFiles}*"),
    ("environment files of anybody", "                aws:ResourceAccount: !Ref AWS::AccountId\n", "                aws:PrincipalAccount: !Ref AWS::AccountId\n"),
    ("a secret by a wildcard", '"([A-Za-z0-9_+=.@-]+(/[A-Za-z0-9_+=.@-]+)*)?"', '"([A-Za-z0-9_+=.@*-]+(/[A-Za-z0-9_+=.@-]+)*)?"'),
    ("reads one parameter at a time", "ssm:GetParameters", "ssm:GetParameter"),
) + faults(
    "policies", "examples/ecr/publisher.yaml",
    ("pushes to every repository", "            Resource: !Ref RepositoryArn\n", '            Resource: "*"\n'),
    ("may delete images", "              - ecr:PutImage  #", "              - ecr:BatchDeleteImage  # `docker push` in examples/ecr/Makefile\n              - ecr:PutImage  #"),
    ("no end of an upload", "              - ecr:CompleteLayerUpload  # the digest of a layer: `docker push` in examples/ecr/Makefile\n", ""),
)

INSTANCES = faults(
    "deploy", "examples/ec2/instances.yaml",
    ("IMDSv1", "HttpTokens: required", "HttpTokens: optional"),
    ("two hops to the metadata", "  MetadataHops:\n    Type: Number\n    Default: 1\n", "  MetadataHops:\n    Type: Number\n    Default: 2\n"),
    ("a disk in clear", "Encrypted: true", "Encrypted: false"),
    ("disks that stay", "DeleteOnTermination: true", "DeleteOnTermination: false"),
    ("a failed instance stays", "InstanceInitiatedShutdownBehavior: terminate", "InstanceInitiatedShutdownBehavior: stop"),
    ("an open port", "      VpcId: !Ref VpcId\n", "      VpcId: !Ref VpcId\n      SecurityGroupIngress:\n        - IpProtocol: tcp\n"
     "          FromPort: 22\n          ToPort: 22\n          CidrIp: 0.0.0.0/0\n"),
) + faults(
    "lint", "examples/ec2/instances.yaml",
    ("a property that does not exist", "HttpPutResponseHopLimit:", "HttpPutResponseHops:"),
    ("a resource that does not exist", "VPCZoneIdentifier: !Ref SubnetIds", "VPCZoneIdentifier: !Ref Subnets"),
    ("a variable without quotes", 'rm -rf "$work" "$temporary"', 'rm -rf $work "$temporary"'),
    ("a parameter that nobody explains", "    Description: The network of the instances\n", ""),
) + faults(
    "lint", "examples/ec2/instance-role.yaml",
    ("a policy element that does not exist", "          - Sid: Cluster\n            Effect: Allow\n", "          - Sid: Cluster\n            Effects: Allow\n"),
) + faults(
    "lint", "examples/ecr/repository.yaml",
    ("an unknown mutability", "AllowedValues: [IMMUTABLE_WITH_EXCLUSION, IMMUTABLE, MUTABLE]", "AllowedValues: [IMMUTABLE_WITH_EXCLUSION, FIXED, MUTABLE]"),
) + faults(
    "user_data", "examples/ec2/instances.yaml",
    ("the start waits for cloud-init", "systemctl enable --now --no-block ecs", "systemctl enable --now ecs"),
    ("the wait is in the foreground", "systemd-run --quiet --no-block", "systemd-run --quiet --wait"),
    ("a file that everybody can read", "            step=\"writing /etc/ecs/ecs.config\"\n",
     "            step=\"writing /etc/ecs/ecs.config\"\n            chmod 0644 \"$temporary\"\n"),
    ("readable for an instant", "temporary=$(mktemp /etc/ecs/.ecs.config.XXXXXXXX)\n",
     "temporary=/etc/ecs/.ecs.config.new; (umask 022; : >$temporary)\n"),
    ("the old file is written, not replaced", 'mv --no-target-directory "$temporary" /etc/ecs/ecs.config', 'cat "$temporary" >/etc/ecs/ecs.config'),
    ("a folder is a target", "mv --no-target-directory", "mv"),
    ("the settings are printed", "            step=\"checking ecs.config\"\n", "            step=\"checking ecs.config\"\n            cat \"$temporary\"\n"),
    ("an empty file is good enough", '[ "$length" != 0 ] && ', ""),
    ("half a file is good enough", ' && [ "$(stat --format %s "$2")" = "$length" ]', ""),
    ("errors are ignored", "            set -euo pipefail\n", "            set -uo pipefail\n"),
    ("any archive is good enough", "| sha256sum --check --status", "| sha256sum --check --status || true"),
    ("the checksum is compared after the installation", "            step=\"comparing the SHA-256 of ecs-agent.tar.gz with AgentSha256\"\n",
     "            tar --extract --gzip --file \"$work/ecs-agent.tar.gz\" --directory \"$work\"; "
     "install -D -m 0755 \"$work/ecs-agent\" /usr/libexec/ecs-agent\n"
     "            step=\"comparing the SHA-256 of ecs-agent.tar.gz with AgentSha256\"\n"),
    ("a failure stays on the instance", "                shutdown -P +10 || true\n", ""),
    ("no time to look", "shutdown -P +10", "shutdown -P now"),
    ("the stack is not told", "cfn-signal --exit-code 1", "true cfn-signal --exit-code 1"),
    ("a failed signal ends the end", '--region "$region" || true\n', '--region "$region"\n'),
    ("the console is not told", "This instance powers off in 10 minutes.\" >&2", "This instance powers off in 10 minutes.\" >/dev/null 2>&1"),
    ("a failure says nothing of its step", "$step failed. This instance", "It failed. This instance"),
    ("a part of the file stays", 'rm -rf "$work" "$temporary"', 'rm -rf "$work"'),
    ("the archive stays in /tmp", 'rm -rf "$work" "$temporary"', 'rm -rf "$temporary"'),
    ("a refused file is installed", '                [[ "$report" == *"The agent would start"* ]]\n', ""),
    ("the agent is not installed", "install -D -m 0755 \"$work/ecs-agent\"", "install -D -m 0644 \"$work/ecs-agent\""),
    ("Docker is not started", "            systemctl enable --now docker\n", ""),
    ("systemd does not know the unit", "            systemctl daemon-reload\n", ""),
    ("the settings come after the start", "            step=\"fetching s3://$bucket/ecs.config\"\n",
     "            systemctl enable --now --no-block ecs\n            step=\"fetching s3://$bucket/ecs.config\"\n"),
    ("success is told at once", "            step=\"waiting for the agent in the background\"\n",
     "            cfn-signal --exit-code 0 --stack \"$stack\" --resource Instances --region \"$region\"\n"),
    ("success is told in any case", "cfn-signal --exit-code $? --reason", "cfn-signal --exit-code 0 --reason"),
    ("the wait is short", "--retry 160", "--retry 3"),
    ("a closed port ends the wait", " --retry-connrefused", ""),
    ("the archive may write where it likes", " ecs-agent ecs.service\n", "\n"),
)

PUBLISH = faults(
    "publish", "examples/ecr/Makefile",
    ("the password is an argument", "aws ecr get-login-password | docker login --username AWS --password-stdin '$(REGISTRY)'",
     "docker login --username AWS --password \"$$(aws ecr get-login-password)\" '$(REGISTRY)'"),
    ("the password is printed", "aws ecr get-login-password | docker", "aws ecr get-login-password | tee /dev/stderr | docker"),
    ("a token that failed is no error", ".SHELLFLAGS := -euo pipefail -c", ".SHELLFLAGS := -eu -c"),
    ("another user", "--username AWS", "--username aws"),
    ("out of Docker Hub", "docker logout '$(REGISTRY)'", "docker logout"),
    ("latest first", "\tdocker push '$(IMAGE):$(VERSION)'\n\tdocker push '$(IMAGE):latest'\n", "\tdocker push '$(IMAGE):latest'\n\tdocker push '$(IMAGE):$(VERSION)'\n"),
    ("only latest", "\tdocker push '$(IMAGE):$(VERSION)'\n", ""),
    ("a push that failed is no error", "\tdocker push '$(IMAGE):$(VERSION)'\n", "\t-docker push '$(IMAGE):$(VERSION)'\n"),
    ("no build before the push", "publish: build\n\tdocker", "publish:\n\tdocker"),
    ("the version is a date", "git rev-parse --short HEAD)\nexport IMAGE", "date +%s)\nexport IMAGE"),
    ("a given registry is ignored", "$(or $(REGISTRY),$(shell", "$(or $(shell"),
    ("no word about a missing repository", "$(if $(REGISTRY),,$(error", "$(if true,,$(error"),
    ("Compose without the image", "export IMAGE := ", "IMAGE := "),
    ("Compose does not build", "compose-publish: compose-build\n", "compose-publish:\n"),
    ("only the plugin", "&& echo docker compose || echo docker-compose)", "; echo docker compose)"),
) + faults(
    "publish", "examples/ecr/compose.yaml",
    ("the second service has a build of its own", "    extends:\n      service: hello\n", "    build: image\n"),
    ("the second service has the tag of the first", "${IMAGE}:${VERSION:?git rev-parse --short HEAD}", "${IMAGE}:latest"),
    ("a build that is not there", "build: image\n", "build: images\n"),
)

PAGE = faults(
    "page", "examples/ecr/README.md",
    ("the password is an argument", "aws ecr get-login-password | docker login --username AWS --password-stdin",
     "docker login --username AWS --password $(aws ecr get-login-password)"),
    ("an option that aws does not have", "aws ecr create-repository --repository-name", "aws ecr create-repository --name"),
    ("a file that is not there", "put-lifecycle-policy --repository-name docker-in-aws/hello --lifecycle-policy-text file://examples/ecr/lifecycle.json",
     "put-lifecycle-policy --repository-name docker-in-aws/hello --lifecycle-policy-text file://examples/ecr/expire.json"),
    ("a parameter that the template does not have", "hello PullAccounts=333333444444\n", "hello Accounts=333333444444\n"),
    ("a target that make does not have", "make -C examples/ecr login publish logout", "make -C examples/ecr login push logout"),
)

FAULTS = [*REPOSITORY, *BUCKET, *ROLE, *TASK, *INSTANCES, *PUBLISH, *PAGE]
