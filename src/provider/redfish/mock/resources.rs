//! The resources of a controller, and what its requests do.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value as Json, json};

use super::answer::{Answer, Asked};
use super::{ADAPTERS, MANAGER, Mock, SESSIONS, SYSTEM, State, TASK};

impl Mock {
    pub(super) fn answer(&self, line: &str, asked: &Asked) -> Answer {
        let mut state = self.state();
        let (method, path) = line.split_once(' ').unwrap_or_default();
        let path = path.trim_end_matches('/');
        if (method, path) == ("GET", "/redfish/v1") {
            let mut root = json!({
                "Systems": {"@odata.id": "/redfish/v1/Systems"},
                "Managers": {"@odata.id": "/redfish/v1/Managers"},
            });
            if self.traits.sessions_max > 0 {
                root["Links"] = json!({"Sessions": {"@odata.id": SESSIONS}});
            }
            return Answer::new(200, root);
        }
        if (method, path) == ("POST", SESSIONS) {
            return self.open(&mut state, &asked.body);
        }
        let by_token =
            state.sessions.iter().find(|(id, _)| asked.token == Some(format!("token-{id}")));
        let basic = format!(
            "Basic {}",
            BASE64_STANDARD.encode(format!("{}:{}", state.login.0, state.login.1))
        );
        if by_token.is_none() && asked.basic.as_ref() != Some(&basic) {
            return Answer::new(401, json!({"error": {"message": "who are you?"}}));
        }
        self.inside(&mut state, method, path, asked)
    }

    fn open(&self, state: &mut State, body: &Json) -> Answer {
        let is_login = body["UserName"] == *state.login.0 && body["Password"] == *state.login.1;
        if self.traits.sessions_max == 0 {
            return Answer::new(404, Json::Null);
        }
        if !is_login {
            return Answer::new(401, Json::Null);
        }
        if state.sessions.len() >= self.traits.sessions_max {
            return Answer::new(503, json!({"error": {"message": "no session left"}}));
        }
        let id = state.next_session;
        state.next_session += 1;
        let user = state.login.0.clone();
        state.sessions.insert(id, user);
        Answer::new(201, Json::Null)
            .header("x-auth-token", format!("token-{id}"))
            .header("location", format!("{SESSIONS}/{id}"))
    }

    fn inside(&self, state: &mut State, method: &str, path: &str, asked: &Asked) -> Answer {
        let media = self.media();
        let ok = |body| Answer::new(200, body);
        let list = |members: Vec<String>| {
            let members: Vec<Json> = members.iter().map(|id| json!({"@odata.id": id})).collect();
            json!({"Members": members})
        };
        match (method, path) {
            ("GET", "/redfish/v1/Systems") => {
                state.parent_was_read = true;
                ok(list(vec![SYSTEM.to_owned()]))
            }
            (_, SYSTEM) if self.traits.needs_parent && !state.parent_was_read => {
                Answer::new(404, Json::Null)
            }
            ("GET", SYSTEM) => ok(self.system(state)),
            ("PATCH", SYSTEM)
                if self.traits.needs_tag && asked.tag.as_deref() != Some("W/\"7\"") =>
            {
                Answer::new(428, Json::Null)
            }
            ("PATCH", SYSTEM) => self.set_boot(state, &asked.body["Boot"]),
            ("POST", reset) if reset == format!("{SYSTEM}/Actions/ComputerSystem.Reset") => {
                self.reset(state, asked.body["ResetType"].as_str().unwrap_or_default())
            }
            ("GET", MANAGER) => ok(match self.traits.media_at_manager {
                true => json!({"VirtualMedia": {"@odata.id": media}}),
                false => json!({}),
            }),
            ("GET", SESSIONS) => {
                ok(list(state.sessions.keys().map(|id| format!("{SESSIONS}/{id}")).collect()))
            }
            ("GET", TASK) => match self.traits.task {
                Some("Running") => Answer::new(202, json!({"TaskState": "Running"})),
                state => ok(json!({"TaskState": state, "Messages": [{"Message": "no route"}]})),
            },
            ("GET", at) if at == media => {
                ok(list(vec![format!("{media}/Floppy"), format!("{media}/Cd")]))
            }
            ("GET", at) if at == format!("{media}/Floppy") => ok(json!({"MediaTypes": ["Floppy"]})),
            ("GET", at) if at == format!("{media}/Cd") => ok(json!({
                "MediaTypes": ["CD"],
                "Inserted": state.image.is_some(),
                "Image": state.image,
            })),
            ("POST", at) if at == format!("{media}/Cd/Actions/VirtualMedia.InsertMedia") => {
                self.insert(state, &asked.body)
            }
            ("POST", at) if at == format!("{media}/Cd/Actions/VirtualMedia.EjectMedia") => {
                (state.image, state.image_is_lost) = (None, false);
                Answer::new(204, Json::Null)
            }
            ("GET", ADAPTERS) => {
                let each = 0..self.traits.adapters.len();
                ok(list(each.map(|number| format!("{ADAPTERS}/{number}")).collect()))
            }
            ("GET", at) if at.starts_with(ADAPTERS) => {
                let number = at.rsplit('/').next().and_then(|number| number.parse().ok());
                let found = number.and_then(|number: usize| self.traits.adapters.get(number));
                match found {
                    Some(mac) => ok(json!({"MACAddress": mac})),
                    None => Answer::new(404, Json::Null),
                }
            }
            (_, at) => self.session(state, method, at),
        }
    }

    fn session(&self, state: &mut State, method: &str, path: &str) -> Answer {
        let id = path.strip_prefix(SESSIONS).and_then(|rest| rest.strip_prefix('/')?.parse().ok());
        let Some(user) = id.and_then(|id: u64| state.sessions.get(&id).cloned()) else {
            return Answer::new(404, Json::Null);
        };
        match method {
            "GET" => Answer::new(200, json!({"UserName": user})),
            "DELETE" => {
                state.sessions.remove(&id.unwrap_or_default());
                Answer::new(204, Json::Null)
            }
            _ => Answer::new(405, Json::Null),
        }
    }

    fn media(&self) -> String {
        let of = if self.traits.media_at_manager { MANAGER } else { SYSTEM };
        format!("{of}/VirtualMedia")
    }

    fn system(&self, state: &State) -> Json {
        let mut system = self.bare_system(state);
        if !self.traits.adapters.is_empty() {
            system["EthernetInterfaces"] = json!({"@odata.id": ADAPTERS});
        }
        system
    }

    fn bare_system(&self, state: &State) -> Json {
        json!({
            "@odata.etag": "W/\"7\"",
            "PowerState": state.power,
            "Manufacturer": "Acme",
            "Model": "R1",
            "SerialNumber": state.serial,
            "BiosVersion": "2.1",
            "Status": {"Health": state.health},
            "Boot": {
                "BootSourceOverrideEnabled": state.boot.0,
                "BootSourceOverrideTarget": state.boot.1,
                "BootSourceOverrideTarget@Redfish.AllowableValues": ["None", "Pxe", "Hdd", "Cd", "UefiHttp"],
            },
            "Links": {"ManagedBy": [{"@odata.id": MANAGER}]},
            "Actions": {"#ComputerSystem.Reset": {
                "target": format!("{SYSTEM}/Actions/ComputerSystem.Reset"),
                "ResetType@Redfish.AllowableValues": self.traits.resets,
            }},
        })
    }

    fn set_boot(&self, state: &mut State, boot: &Json) -> Answer {
        let enabled = boot["BootSourceOverrideEnabled"].as_str().unwrap_or_default();
        if enabled == "Disabled" && self.traits.keeps_override {
            return Answer::new(400, Json::Null);
        }
        let is_there = state.image.is_some() && !state.image_is_lost;
        if boot["BootSourceOverrideTarget"] == "Cd" && !is_there {
            return Answer::new(500, json!({"error": {"message": "no such device"}}));
        }
        let kept =
            if self.traits.always_continuous && enabled == "Once" { "Continuous" } else { enabled };
        kept.clone_into(&mut state.boot.0);
        if let Some(target) = boot["BootSourceOverrideTarget"].as_str() {
            target.clone_into(&mut state.boot.1);
        }
        Answer::new(200, Json::Null)
    }

    fn reset(&self, state: &mut State, kind: &str) -> Answer {
        let at = self.clock.monotonic() + self.traits.power_delay;
        if !self.traits.resets.contains(&kind) {
            return Answer::new(400, Json::Null);
        }
        match (kind, state.power) {
            ("On", "On") | ("ForceOff", "Off") => return Answer::new(409, Json::Null),
            ("On", _) => state.pending.push((at, "On")),
            ("ForceOff", _) => state.pending.push((at, "Off")),
            ("GracefulShutdown", "On") if !self.traits.ignores_shutdown => {
                state.pending.push((at, "Off"));
            }
            _ => {}
        }
        self.switched.notify_one();
        Answer::new(204, Json::Null)
    }

    fn insert(&self, state: &mut State, body: &Json) -> Answer {
        if state.image.is_some() {
            return Answer::new(400, json!({"error": {"message": "a medium is attached"}}));
        }
        let image = body["Image"].as_str().map(str::to_owned);
        match self.traits.task {
            None | Some("Completed") => state.image = image,
            Some(_) => {}
        }
        match self.traits.task {
            None => Answer::new(204, Json::Null),
            Some(_) => Answer::new(202, Json::Null).header("location", TASK.to_owned()),
        }
    }
}
