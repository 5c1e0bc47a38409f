//! From pins to something a step can stand in: tools, environment, staging folder, process.
