//! The actions of ECR that policies allow and deny.

/// An action of ECR, with its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Action(&'static str);

impl Action {
    pub(crate) const BATCH_CHECK_LAYER_AVAILABILITY: Self = Self("ecr:BatchCheckLayerAvailability");
    pub(crate) const BATCH_DELETE_IMAGE: Self = Self("ecr:BatchDeleteImage");
    pub(crate) const BATCH_GET_IMAGE: Self = Self("ecr:BatchGetImage");
    pub(crate) const BATCH_IMPORT_UPSTREAM_IMAGE: Self = Self("ecr:BatchImportUpstreamImage");
    pub(crate) const COMPLETE_LAYER_UPLOAD: Self = Self("ecr:CompleteLayerUpload");
    pub(crate) const CREATE_PULL_THROUGH_CACHE_RULE: Self = Self("ecr:CreatePullThroughCacheRule");
    pub(crate) const CREATE_REPOSITORY: Self = Self("ecr:CreateRepository");
    pub(crate) const DELETE_LIFECYCLE_POLICY: Self = Self("ecr:DeleteLifecyclePolicy");
    pub(crate) const DELETE_PULL_THROUGH_CACHE_RULE: Self = Self("ecr:DeletePullThroughCacheRule");
    pub(crate) const DELETE_REPOSITORY: Self = Self("ecr:DeleteRepository");
    pub(crate) const DELETE_REPOSITORY_POLICY: Self = Self("ecr:DeleteRepositoryPolicy");
    pub(crate) const DESCRIBE_IMAGES: Self = Self("ecr:DescribeImages");
    pub(crate) const DESCRIBE_PULL_THROUGH_CACHE_RULES: Self = Self("ecr:DescribePullThroughCacheRules");
    pub(crate) const DESCRIBE_REGISTRY: Self = Self("ecr:DescribeRegistry");
    pub(crate) const DESCRIBE_REPOSITORIES: Self = Self("ecr:DescribeRepositories");
    pub(crate) const GET_AUTHORIZATION_TOKEN: Self = Self("ecr:GetAuthorizationToken");
    pub(crate) const GET_DOWNLOAD_URL_FOR_LAYER: Self = Self("ecr:GetDownloadUrlForLayer");
    pub(crate) const GET_LIFECYCLE_POLICY: Self = Self("ecr:GetLifecyclePolicy");
    pub(crate) const GET_LIFECYCLE_POLICY_PREVIEW: Self = Self("ecr:GetLifecyclePolicyPreview");
    pub(crate) const GET_REPOSITORY_POLICY: Self = Self("ecr:GetRepositoryPolicy");
    pub(crate) const INITIATE_LAYER_UPLOAD: Self = Self("ecr:InitiateLayerUpload");
    pub(crate) const LIST_IMAGES: Self = Self("ecr:ListImages");
    pub(crate) const LIST_TAGS_FOR_RESOURCE: Self = Self("ecr:ListTagsForResource");
    pub(crate) const PUT_IMAGE: Self = Self("ecr:PutImage");
    pub(crate) const PUT_IMAGE_SCANNING_CONFIGURATION: Self = Self("ecr:PutImageScanningConfiguration");
    pub(crate) const PUT_IMAGE_TAG_MUTABILITY: Self = Self("ecr:PutImageTagMutability");
    pub(crate) const PUT_LIFECYCLE_POLICY: Self = Self("ecr:PutLifecyclePolicy");
    pub(crate) const SET_REPOSITORY_POLICY: Self = Self("ecr:SetRepositoryPolicy");
    pub(crate) const START_LIFECYCLE_POLICY_PREVIEW: Self = Self("ecr:StartLifecyclePolicyPreview");
    pub(crate) const TAG_RESOURCE: Self = Self("ecr:TagResource");
    pub(crate) const UNTAG_RESOURCE: Self = Self("ecr:UntagResource");
    pub(crate) const UPLOAD_LAYER_PART: Self = Self("ecr:UploadLayerPart");

    /// Clients call it to get an image.
    pub(crate) fn is_pull(self) -> bool {
        [Self::BATCH_CHECK_LAYER_AVAILABILITY, Self::BATCH_GET_IMAGE, Self::GET_DOWNLOAD_URL_FOR_LAYER].contains(&self)
    }

    /// The action as policies name it.
    pub(crate) fn name(self) -> &'static str {
        self.0
    }
}

/// The names of all actions that ECR has, whether this registry has their calls or not.
pub(crate) const ALL_ACTIONS: [&str; 61] = [
    "BatchCheckLayerAvailability",
    "BatchDeleteImage",
    "BatchGetImage",
    "BatchGetRepositoryScanningConfiguration",
    "BatchImportUpstreamImage",
    "CompleteLayerUpload",
    "CreatePullThroughCacheRule",
    "CreateRepository",
    "CreateRepositoryCreationTemplate",
    "DeleteLifecyclePolicy",
    "DeletePullThroughCacheRule",
    "DeleteRegistryPolicy",
    "DeleteRepository",
    "DeleteRepositoryCreationTemplate",
    "DeleteRepositoryPolicy",
    "DeleteSigningConfiguration",
    "DeregisterPullTimeUpdateExclusion",
    "DescribeImageReplicationStatus",
    "DescribeImageScanFindings",
    "DescribeImageSigningStatus",
    "DescribeImages",
    "DescribePullThroughCacheRules",
    "DescribeRegistry",
    "DescribeRepositories",
    "DescribeRepositoryCreationTemplates",
    "GetAccountSetting",
    "GetAuthorizationToken",
    "GetDownloadUrlForLayer",
    "GetImageCopyStatus",
    "GetLifecyclePolicy",
    "GetLifecyclePolicyPreview",
    "GetRegistryPolicy",
    "GetRegistryScanningConfiguration",
    "GetRepositoryPolicy",
    "GetSigningConfiguration",
    "InitiateLayerUpload",
    "ListImageReferrers",
    "ListImages",
    "ListPullTimeUpdateExclusions",
    "ListTagsForResource",
    "PutAccountSetting",
    "PutImage",
    "PutImageScanningConfiguration",
    "PutImageTagMutability",
    "PutLifecyclePolicy",
    "PutRegistryPolicy",
    "PutRegistryScanningConfiguration",
    "PutReplicationConfiguration",
    "PutSigningConfiguration",
    "RegisterPullTimeUpdateExclusion",
    "ReplicateImage",
    "SetRepositoryPolicy",
    "StartImageScan",
    "StartLifecyclePolicyPreview",
    "TagResource",
    "UntagResource",
    "UpdateImageStorageClass",
    "UpdatePullThroughCacheRule",
    "UpdateRepositoryCreationTemplate",
    "UploadLayerPart",
    "ValidatePullThroughCacheRule",
];
