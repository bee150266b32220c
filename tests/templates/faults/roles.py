"""Faults in the policies of the roles."""

from faults.fault import faults


FAULTS = [
    *faults(
        "policies", "examples/ec2/instance-role.yaml",
        ("every repository", "            Resource: !Ref RepositoryArn\n", '            Resource: "*"\n'),
        ("every repository by a parameter", "repository/[a-z0-9._/-]+", "repository/[a-z0-9._/*-]+"),
        ("every action of ECR", "              - ecr:BatchGetImage  #", "              - ecr:*  #"),
        ("instances may push",
         "              - ecr:GetDownloadUrlForLayer  #",
         "              - ecr:PutImage  # `fromImage` in src/docker/images/pull.rs\n"
         "              - ecr:GetDownloadUrlForLayer  #"),
        ("every cluster",
         'Resource: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:cluster/${ClusterName}"',
         'Resource: "*"'),
        ("a cluster by a wildcard", '    AllowedPattern: "[A-Za-z0-9_-]{1,255}"', '    AllowedPattern: "[A-Za-z0-9_*-]{1,255}"'),
        ("no token",
         "              - ecr:GetAuthorizationToken  # `get_authorization_token()` in src/aws/services/ecr.rs\n"
         "            # A token is for a whole registry: the call has no resource.\n"
         '            Resource: "*"\n',
         "              - ecr:GetAuthorizationToken  # `get_authorization_token()` in src/aws/services/ecr.rs\n"
         "            Resource: !Ref RepositoryArn\n"),
        ("messages of every cluster",
         "              - ecs:StartTelemetrySession  # the websocket for metrics and health: `PublishMetricsRequest` in src/tcs/publish.rs\n"
         "            Resource: !Sub "
         '"arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:container-instance/${ClusterName}/*"\n'
         "            Condition:\n              ArnEquals:\n"
         '                ecs:cluster: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:cluster/${ClusterName}"\n',
         "              - ecs:StartTelemetrySession  # the websocket for metrics and health: `PublishMetricsRequest` in src/tcs/publish.rs\n"
         '            Resource: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:container-instance/*"\n'),
        ("reports are forgotten",
         "              - ecs:SubmitTaskStateChange  # `submit_task_state_change()` in src/ecs/report.rs\n",
         ""),
        ("the whole bucket", '/ecs.config"', '/*"'),
        ("a bucket of anybody",
         "            Condition:\n              StringEquals:\n"
         "                aws:ResourceAccount: !Ref AWS::AccountId\n",
         ""),
        ("every log group", "log-group:${LogGroup}:*", "log-group:*"),
        ("a log group's namesakes", "log-group:${LogGroup}:*", "log-group:${LogGroup}*"),
        ("logs without the feature", "    Condition: HasLogGroup\n", ""),
        ("tags at any time",
         "            Condition:\n              StringEquals:\n"
         "                ecs:CreateAction: RegisterContainerInstance\n",
         ""),
        ("draining is always allowed", "    Condition: DrainsSpot\n", ""),
        ("another action in the place of one", "              - logs:PutLogEvents  #", "              - logs:PutLogEvent  #"),
        ("a right that nothing uses",
         "              - ec2:DescribeTags  #",
         "              - ec2:DescribeInstances  # `DescribeTags` in src/aws/identity/tags.rs\n"
         "              - ec2:DescribeTags  #"),
        ("an action without its call", "  # `DescribeTags` in src/aws/identity/tags.rs", ""),
        ("a call that is not in the source", "`submit_task_state_change()`", "`submit_container_state_change()`"),
        ("a file that does not exist", "src/ecs/drain.rs", "src/ecs/draining.rs"),
        ("another service may use the role", "ec2.amazonaws.com", "ecs-tasks.amazonaws.com"),
        ("a condition that the call does not have",
         "ecs:CreateAction: RegisterContainerInstance",
         "ecs:CreateActions: RegisterContainerInstance"),
    ),
    *faults(
        "policies", "examples/ec2/execution-role.yaml",
        ("ECS of every account",
         "              StringEquals:\n                aws:SourceAccount: !Ref AWS::AccountId\n"
         "              ArnLike:\n",
         "              ArnLike:\n"),
        ("resources of every account",
         '                aws:SourceArn: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:*"\n',
         '                aws:SourceArn: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:*:*"\n'),
        ("no condition of trust",
         "              ArnLike:\n"
         '                aws:SourceArn: !Sub "arn:${AWS::Partition}:ecs:${AWS::Region}:${AWS::AccountId}:*"\n',
         ""),
        ("another service may use the role", "ecs-tasks.amazonaws.com", "ec2.amazonaws.com"),
        ("every repository", "            Resource: !Ref RepositoryArn\n", '            Resource: "*"\n'),
        ("every parameter", "parameter/${Parameters}/*", "parameter/*"),
        ("a parameter's namesakes", "parameter/${Parameters}/*", "parameter/${Parameters}*"),
        ("every secret", "secret:${Secrets}/*", "secret:*"),
        ("every key", "            Resource: !Ref KeyArn\n", '            Resource: "*"\n'),
        ("a key for everything", "                kms:ViaService:\n", "                kms:CallerAccount:\n"),
        ("a folder's namesakes", "${EnvironmentFiles}/*", "${EnvironmentFiles}*"),
        ("environment files of anybody",
         "                aws:ResourceAccount: !Ref AWS::AccountId\n",
         "                aws:PrincipalAccount: !Ref AWS::AccountId\n"),
        ("a secret by a wildcard",
         '"([A-Za-z0-9_+=.@-]+(/[A-Za-z0-9_+=.@-]+)*)?"',
         '"([A-Za-z0-9_+=.@*-]+(/[A-Za-z0-9_+=.@-]+)*)?"'),
        ("reads one parameter at a time", "ssm:GetParameters", "ssm:GetParameter"),
    ),
    *faults(
        "policies", "examples/ecr/publisher.yaml",
        ("pushes to every repository", "            Resource: !Ref RepositoryArn\n", '            Resource: "*"\n'),
        ("may delete images",
         "              - ecr:PutImage  #",
         "              - ecr:BatchDeleteImage  # `docker push` in examples/ecr/Makefile\n"
         "              - ecr:PutImage  #"),
        ("no end of an upload",
         "              - ecr:CompleteLayerUpload  # the digest of a layer: `docker push` in examples/ecr/Makefile\n",
         ""),
    ),
]
