//! Task protection. This module owns who can be protected and for how long; nothing here stops a task because it is not protected,
//! since there are no services that scale in.
//!
//! As in AWS, only tasks of a service can be protected. Here these are the tasks whose group begins with `service:`
//! (`run-task --group service:web`), and scripted tasks with a `serviceName`.

use super::request::{Answer, cluster_of, missing, names};
use crate::api_error::ApiError;
use crate::state::State;
use crate::tasks::{Task, TaskStatus};
use crate::time::now;
use serde_json::{Value, json};

/// Upper limit of the tasks in a call.
const MAX_TASKS: usize = 10;
/// How long a protection lasts, in minutes: without a wish, and at the most.
const DEFAULT_MINUTES: i64 = 120;
const MAX_MINUTES: i64 = 2880;

/// GetTaskProtection.
pub(super) fn get(state: &State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let (mut protected, mut failures) = (Vec::new(), Vec::new());
    for name in tasks(body)? {
        match found(state, &cluster, name) {
            Ok(task) => protected.push(show(task, now())),
            Err(failure) => failures.push(failure),
        }
    }
    Ok(json!({"protectedTasks": protected, "failures": failures}))
}

/// UpdateTaskProtection.
pub(super) fn update(state: &mut State, body: &Value) -> Answer {
    let cluster = cluster_of(state, body)?;
    let enabled = body["protectionEnabled"].as_bool();
    let enabled = enabled.ok_or_else(|| ApiError::invalid("protectionEnabled cannot be blank."))?;
    let minutes = match &body["expiresInMinutes"] {
        Value::Null => DEFAULT_MINUTES,
        given => given
            .as_i64()
            .filter(|minutes| (1..=MAX_MINUTES).contains(minutes))
            .ok_or_else(|| ApiError::invalid(format!("expiresInMinutes should be between 1 and {MAX_MINUTES}.")))?,
    };
    let until = now() + (minutes * 60) as f64;
    let (mut protected, mut failures) = (Vec::new(), Vec::new());
    for name in tasks(body)? {
        match found(state, &cluster, name).map(|task| task.arn.clone()) {
            Ok(arn) => {
                if let Some(task) = state.task_mut(&arn) {
                    task.protected_until = enabled.then_some(until);
                    protected.push(show(task, now()));
                }
            }
            Err(failure) => failures.push(failure),
        }
    }
    Ok(json!({"protectedTasks": protected, "failures": failures}))
}

fn tasks(body: &Value) -> Result<impl Iterator<Item = &str>, ApiError> {
    let count = names(body, "tasks").count();
    if !(1..=MAX_TASKS).contains(&count) {
        return Err(ApiError::invalid(format!("tasks must have 1 to {MAX_TASKS} entries.")));
    }
    Ok(names(body, "tasks"))
}

/// A task that can be protected, or the entry in `failures`.
fn found<'s>(state: &'s State, cluster: &str, name: &str) -> Result<&'s Task, Value> {
    let arn = if name.contains(':') { name.to_owned() } else { state.site.arn(&format!("task/{cluster}/{name}")) };
    let task = state.task(name).filter(|task| task.cluster == cluster).ok_or_else(|| missing(&arn))?;
    let is_of_service =
        task.group.starts_with("service:") || task.payload["serviceName"].as_str().is_some_and(|name| !name.is_empty());
    if !is_of_service || task.last_status == TaskStatus::Stopped {
        return Err(json!({"arn": task.arn, "reason": "TASK_NOT_VALID"}));
    }
    Ok(task)
}

/// The protection as in the API. One that has run out is none.
fn show(task: &Task, now: f64) -> Value {
    match task.protected_until.filter(|until| *until > now) {
        Some(until) => json!({"taskArn": task.arn, "protectionEnabled": true, "expirationDate": until}),
        None => json!({"taskArn": task.arn, "protectionEnabled": false}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::scripted_task;
    use crate::site::Site;

    /// A task of a service, another task, and a task of a service that has stopped.
    fn state() -> State {
        let mut state = State::new(Site::example(), "default");
        for (id, service) in [("served", "web"), ("alone", ""), ("gone", "web")] {
            let payload = json!({"arn": state.site.arn(&format!("task/default/{id}")), "serviceName": service,
                "containers": [{"name": "main", "image": "i", "essential": true}]});
            state.tasks.push(scripted_task(&Site::example(), "default", "instance", payload, 1.0));
        }
        state.tasks[2].mark_stopped("", 2.0);
        state
    }

    fn enable(minutes: Value) -> Value {
        json!({"tasks": ["served"], "protectionEnabled": true, "expiresInMinutes": minutes})
    }

    #[test]
    fn a_task_of_a_service_is_protected_until_its_time_is_over() {
        let mut state = state();
        let ask = |state: &State| get(state, &json!({"tasks": ["served"]})).unwrap()["protectedTasks"][0].clone();
        let arn = state.tasks[0].arn.clone();
        assert_eq!(ask(&state), json!({"taskArn": arn, "protectionEnabled": false}));
        for (minutes, seconds) in [(json!(60), 3600.0), (Value::Null, 7200.0)] {
            let answer = update(&mut state, &enable(minutes)).unwrap();
            assert_eq!(answer["failures"], json!([]));
            let left = answer["protectedTasks"][0]["expirationDate"].as_f64().unwrap() - now();
            assert!((seconds - 60.0..=seconds).contains(&left), "{left}");
            assert_eq!(ask(&state), answer["protectedTasks"][0]);
        }
        state.tasks[0].protected_until = Some(now() - 1.0);
        assert_eq!(ask(&state)["protectionEnabled"], false);
        update(&mut state, &enable(json!(1))).unwrap();
        update(&mut state, &json!({"tasks": [arn], "protectionEnabled": false})).unwrap();
        assert_eq!(ask(&state), json!({"taskArn": arn, "protectionEnabled": false}));
    }

    #[test]
    fn other_tasks_cannot_be_protected() {
        let mut state = state();
        let asked = json!({"tasks": ["alone", "gone", "none"], "protectionEnabled": true});
        for answer in [update(&mut state, &asked).unwrap(), get(&state, &asked).unwrap()] {
            assert_eq!(answer["protectedTasks"], json!([]));
            let failures = answer["failures"].as_array().unwrap().iter();
            let reasons: Vec<_> = failures.map(|failure| failure["reason"].as_str().unwrap()).collect();
            assert_eq!(reasons, ["TASK_NOT_VALID", "TASK_NOT_VALID", "MISSING"]);
        }
        state.tasks[1].group = "service:web".to_owned();
        assert_eq!(get(&state, &json!({"tasks": ["alone"]})).unwrap()["failures"], json!([]));
    }

    #[test]
    fn wrong_requests_are_refused() {
        let mut state = state();
        for (body, part) in [
            (json!({"tasks": ["served"]}), "protectionEnabled"),
            (enable(json!(0)), "between 1 and 2880"),
            (enable(json!(2881)), "between 1 and 2880"),
            (enable(json!("60")), "between 1 and 2880"),
            (json!({"protectionEnabled": true}), "1 to 10"),
            (json!({"protectionEnabled": true, "tasks": vec!["x"; 11]}), "1 to 10"),
        ] {
            let error = update(&mut state, &body).unwrap_err();
            assert_eq!(error.code, "InvalidParameterException");
            assert!(error.message.contains(part), "{}", error.message);
        }
    }
}
