//! Healing: the faults end, everything on the way arrives, and containers do what others wait for.

use crate::control::EcsTask;
use crate::schedule::{Delivery, How};
use crate::world::World;
use ecs_core::Event;
use ecs_core::model::task::Condition;
use ecs_core::model::{Health, RunState, TaskArn, TaskStatus};

impl World {
    /// Ends all faults: everything on the way arrives, and deferred changes are committed.
    pub(crate) fn heal(&mut self) {
        self.note(|_| "HEALED".to_owned());
        self.ecs.acks_to_lose = 0;
        self.has_sent_manifest = false;
        (self.burst_left, self.crash_at, self.hanging_operations, self.failing_operations) = (0, None, 0, 0);
        self.feed(Event::Tick);
        self.show_links();
    }

    /// Makes one thing happen for which no time must pass; false if there is none.
    pub(crate) fn drain_one(&mut self) -> bool {
        if !self.pending.is_empty() {
            self.go_on(0, How::Works);
        } else if !self.docker.events.is_empty() {
            self.fact(0, Delivery::Once);
        } else if !self.late.is_empty() {
            self.land(0);
        // Until lost tasks are rebuilt, messages of ECS are held back and not answered.
        } else if !self.ecs.messages.is_empty() && !self.state.host.lost {
            self.deliver(self.ecs.arriving(&self.ecs.messages, 0));
        } else {
            return self.live() || self.remind();
        }
        true
    }

    /// Sends one manifest if ECS wants a task to stop that the agent still runs. The reason may be that ECS has not sent the
    /// stop, or that ECS knows the task to be stopped and the agent rebuilt it, because somebody had started its container
    /// again. One manifest is enough: the agent must ask about the task and obey the answer. No manifest is sent while tasks
    /// are lost: it would be applied before the payloads that bring the tasks that it does not list.
    fn remind(&mut self) -> bool {
        let goes_on = |arn: &TaskArn| self.state.tasks.get(arn).is_some_and(|task| task.known != TaskStatus::Stopped);
        let needs_reminder = |(arn, task): (&TaskArn, &EcsTask)| {
            task.wants_stop && (task.accepted.status != TaskStatus::Stopped || goes_on(arn))
        };
        if self.has_sent_manifest || self.state.host.lost || !self.ecs.tasks.iter().any(needs_reminder) {
            return false;
        }
        self.has_sent_manifest = true;
        let manifest = self.ecs.manifest();
        self.feed(manifest);
        if let Some(confirmation) = self.ecs.confirmations.last().cloned() {
            self.feed(confirmation);
        }
        true
    }

    /// Every running container ends.
    pub(crate) fn end_all(&mut self) {
        for at in 0..self.docker.containers.len() {
            if !self.docker.containers[at].foreign {
                self.docker.exit(at, 0);
            }
        }
    }

    /// A container does what others wait for: it becomes healthy, or it ends.
    pub(crate) fn live(&mut self) -> bool {
        for at in 0..self.docker.containers.len() {
            let container = &self.docker.containers[at];
            if container.foreign || container.state != RunState::Running {
                continue;
            }
            let Some(task) = self.state.tasks.get(&container.task) else { continue };
            let is_waited_for = task.specs().flat_map(|spec| &spec.depends_on).any(|dependency| {
                dependency.container == container.container
                    && matches!(dependency.condition, Condition::Complete | Condition::Success)
            });
            if is_waited_for {
                self.docker.exit(at, 0);
                return true;
            }
            if container.health_check && container.health != Health::Healthy {
                self.docker.health(at, true);
                return true;
            }
        }
        let missing = self.ecs.tasks.iter().position(|(arn, task)| {
            // The agent takes no credentials for an unknown task, and keeps none of the task role of a stopped one.
            let Some(state) = self.state.tasks.get(arn) else { return false };
            let role = task.role.as_ref().filter(|_| state.known != TaskStatus::Stopped);
            task.accepted.status != TaskStatus::Stopped
                && task.credentials.iter().chain(role).any(|id| !self.credentials.contains(id))
        });
        if let Some(at) = missing {
            self.send_credentials(at, false);
        }
        missing.is_some()
    }
}
