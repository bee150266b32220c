# An image (AMI) of Amazon Linux 2023 with Docker and the package of the agent. Its instances need no download before they register.
#
#   packer init examples/ami/ami.pkr.hcl
#   packer build -var package=target/release-files/ecs-agent-0.1.0-1.x86_64.rpm examples/ami/ami.pkr.hcl
#
# The cluster is not in the image: the user data of an instance writes /etc/ecs/ecs.config (systemd/fleet.md).

packer {
  required_plugins {
    amazon = {
      source  = "github.com/hashicorp/amazon"
      version = ">= 1.3.0"
    }
  }
}

variable "package" {
  type        = string
  description = "The file of the package, made by examples/release"
}

variable "region" {
  type    = string
  default = "us-west-2"
}

# For Graviton: arm64, with the package of aarch64 and an instance type such as t4g.small.
variable "architecture" {
  type    = string
  default = "x86_64"
}

variable "instance_type" {
  type    = string
  default = "t3.small"
}

locals {
  uploaded = "/tmp/${basename(var.package)}"
}

source "amazon-ebs" "ecs" {
  region          = var.region
  instance_type   = var.instance_type
  ssh_username    = "ec2-user"
  ami_name        = "ecs-agent-${formatdate("YYYYMMDD-hhmmss", timestamp())}"
  ami_description = "Container instance with ${basename(var.package)}"
  # Instances of this image have IMDSv2 only, as in examples/ec2/instances.yaml.
  imds_support = "v2.0"

  source_ami_filter {
    owners      = ["amazon"]
    most_recent = true
    filters = {
      name                = "al2023-ami-2023.*-kernel-*-${var.architecture}"
      root-device-type    = "ebs"
      virtualization-type = "hvm"
    }
  }

  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # Images and containers share this disk.
  launch_block_device_mappings {
    device_name           = "/dev/xvda"
    volume_type           = "gp3"
    volume_size           = 30
    delete_on_termination = true
  }
}

build {
  sources = ["source.amazon-ebs.ecs"]

  provisioner "file" {
    source      = var.package
    destination = local.uploaded
  }

  provisioner "shell" {
    script          = "${path.root}/setup"
    execute_command = "chmod +x {{ .Path }}; sudo {{ .Path }} ${local.uploaded}"
  }
}
