//! Tests through the real binary: processes, sockets and files as a user has them. One test binary, so that it is
//! linked once; each test starts its own nodes on ports and folders of its own.

mod admin;
mod cli;
mod clients;
mod common;
mod complexity;
mod compression;
mod config;
mod copies;
mod copy;
mod crash;
mod damage;
mod dead_node;
mod demo;
mod dialect_queries;
mod dialect_values;
mod disk;
mod function_errors;
mod leaves;
mod limits;
mod long_texts;
mod membership;
mod plan_cache;
mod queries;
mod refusals;
mod start;
mod time_modifiers;
mod transactions;
mod types;
mod wire_protocol;
