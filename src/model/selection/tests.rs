//! Rules, choices and groups on data sets made in memory.
