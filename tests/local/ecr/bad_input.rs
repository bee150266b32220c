//! Bad input: the error that the CLI prints names the member and what it must be.

use super::Session;

#[tokio::test]
async fn errors_name_the_member_and_its_form() {
    let Some(session) = Session::start().await else { return };
    session.ok("create-repository --repository-name app").await;
    for (line, reason) in [
        (
            "create-repository --repository-name App",
            "(InvalidParameterException) when calling the CreateRepository operation: Invalid parameter at 'repositoryName' failed to satisfy constraint: 'must satisfy regular expression",
        ),
        ("create-repository --repository-name ../../etc/passwd", "'repositoryName' failed to satisfy constraint"),
        (
            "create-repository --repository-name app",
            "(RepositoryAlreadyExistsException) when calling the CreateRepository operation: The repository with name 'app' already exists in the registry with id '123456789012'",
        ),
        ("create-repository --repository-name b1 --image-tag-mutability SOME", "Member must satisfy enum value set"),
        (
            "describe-repositories --repository-names none",
            "(RepositoryNotFoundException) when calling the DescribeRepositories operation: The repository with name 'none' does not exist in the registry with id '123456789012'",
        ),
        (
            "describe-images --repository-name app --image-ids imageTag=none",
            "(ImageNotFoundException) when calling the DescribeImages operation: The image with imageId {imageDigest:'null', imageTag:'none'} does not exist within the repository with name 'app' in the registry with id '123456789012'",
        ),
        ("list-images --repository-name app --next-token ?", "'nextToken' failed to satisfy constraint"),
        (
            "list-images --repository-name app --registry-id 1",
            "'registryId' failed to satisfy constraint: 'must satisfy regular expression '[0-9]{12}''",
        ),
        (
            "list-images --repository-name app --registry-id 999999999999",
            "because no resource-based policy allows the ecr:ListImages action",
        ),
        ("get-authorization-token --registry-ids 999999999999", "there is no account 999999999999 here"),
        (
            "set-repository-policy --repository-name app --policy-text {}",
            "'Invalid repository policy provided: Statement: a statement, or an array of statements'",
        ),
        ("get-repository-policy --repository-name app", "(RepositoryPolicyNotFoundException)"),
        ("get-lifecycle-policy-preview --repository-name app", "(LifecyclePolicyPreviewNotFoundException)"),
        (
            "tag-resource --resource-arn app --tags Key=a,Value=b",
            "'resourceArn' failed to satisfy constraint: 'Invalid ARN'",
        ),
        (
            "put-image --repository-name app --image-manifest {}",
            "'ImageManifest' failed to satisfy constraint: 'schemaVersion must be 2'",
        ),
        ("batch-delete-image --repository-name none --image-ids imageTag=x", "(RepositoryNotFoundException)"),
        (
            "start-image-scan --repository-name app --image-id imageTag=x",
            "StartImageScan is not supported by this ECR.",
        ),
    ] {
        let refused = session.refused(line).await;
        assert!(refused.starts_with("An error occurred (") && refused.contains(reason), "{line}: {refused}");
    }
}
