//! Rendering. Every function writes to a sink that the caller passes, so that the terminal, a pipe and a snapshot test
//! run the same code.

mod audit;
mod author;
mod board;
mod columns;
mod data;
mod describe;
mod error;
mod history;
mod issues;
mod jsonpath;
mod lists;
mod lock;
mod plan;
mod progress;
mod runbox;
mod schema;
mod sheet;
mod status;
mod table;
mod text;
mod time;
mod timeline;
mod yaml;

pub(crate) use audit::write_audit;
pub(crate) use author::{Drawing, template, write_action, write_actions};
pub(crate) use board::{Fleet, RATE_MS, View, board};
pub(crate) use columns::{
    Columned, Content, unknown_column, write_chosen, write_csv_header, write_csv_rows,
};
pub(crate) use data::{DataForm, Record, json_of, json_of_list, write_list, write_one};
pub(crate) use describe::{next_after_failure, next_for_hold, write_machine, write_run};
pub(crate) use error::{as_flags, hint_of, write_error};
pub(crate) use history::{Subjects, write_history};
pub(crate) use issues::{Issue, issue_of_lock, issues_of, write_issues};
pub(crate) use jsonpath::Template;
pub(crate) use lists::Verdict;
pub(crate) use lock::{lock_line, lock_name};
pub(crate) use plan::{role_text, step_line, write_plan, write_plans};
pub(crate) use progress::{Progress, hold, write_hold, write_line};
pub(crate) use runbox::{also_failed, also_failed_text, write_header, write_result};
pub(crate) use schema::schema_json;
pub(crate) use status::{Tally, bar_status, step_status};
pub(crate) use table::{
    ended_name, run_ms, write_import_header, write_import_row, write_machine_row, write_machines,
    write_run_row, write_runs,
};
pub(crate) use text::{
    Look, Meaning, condition_name, cut, effective_name, multiline, padded, phase_name,
    run_phase_name, sanitized, short_run, shortened, wait_reason_name, width, wrapped,
};
pub(crate) use time::{elapsed_text, instant, rfc3339};
pub(crate) use timeline::{write_simulated, write_timeline};

#[cfg(test)]
mod tests;
