//! The real agents and the command line, with real traffic between network namespaces. Needs root, and the kernel
//! programs built (`cargo xtask test` sees to both).

mod backends;
mod birth;
mod births;
mod collisions;
mod counters;
mod damage;
mod detach;
mod doors;
mod ecmp;
mod edge;
mod ends;
mod external;
mod fragments;
mod gone;
mod health;
mod hosts;
mod input;
mod metrics;
mod node;
mod policy;
mod reject;
mod restart;
mod services;
mod sides;
mod swap;
