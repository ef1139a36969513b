/*-------------------------------------------------------------------------
 *
 * task_columns.h
 *		The columns of _taskshed.task, in their order.
 *
 * The script creates them like this, and nothing else in C says so again: the
 * numbers in rows.h and the shape in store.c are made from this list.  New columns
 * come last, since dumps of older versions are restored.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */

/* there is deliberately no #ifndef here: who includes it says what TASK_COLUMN is */

/* name, type, can it be null */
TASK_COLUMN(id, INT8OID, not_null)
TASK_COLUMN(owner, OIDOID, not_null)
TASK_COLUMN(created_at, TIMESTAMPTZOID, not_null)
TASK_COLUMN(owner_name, NAMEOID, not_null)
TASK_COLUMN(is_alias, BOOLOID, not_null)
TASK_COLUMN(task_id, TEXTOID, not_null)
TASK_COLUMN(group_id, TEXTOID, nullable)
TASK_COLUMN(callback, TEXTOID, not_null)
TASK_COLUMN(kwargs, JSONBOID, not_null)
TASK_COLUMN(run_type, TEXTOID, not_null)
TASK_COLUMN(every, INTERVALOID, nullable)
TASK_COLUMN(schedule, TEXTOID, nullable)
TASK_COLUMN(timezone, TEXTOID, not_null)
TASK_COLUMN(until, TIMESTAMPTZOID, nullable)
TASK_COLUMN(max_runs, INT4OID, nullable)
TASK_COLUMN(catch_up, TEXTOID, not_null)
TASK_COLUMN(start_within, INTERVALOID, nullable)
TASK_COLUMN(timeout, INTERVALOID, nullable)
TASK_COLUMN(max_attempts, INT4OID, nullable)
TASK_COLUMN(retry_delay, INTERVALOID, nullable)
TASK_COLUMN(retry_backoff, FLOAT8OID, nullable)
TASK_COLUMN(retry_max_delay, INTERVALOID, nullable)
TASK_COLUMN(history, TEXTOID, nullable)
TASK_COLUMN(description, TEXTOID, nullable)
TASK_COLUMN(on_failure, TEXTOID, nullable)
TASK_COLUMN(notify, TEXTOID, nullable)
TASK_COLUMN(settings, JSONBOID, nullable)
TASK_COLUMN(options, JSONBOID, nullable)
TASK_COLUMN(after_status, TEXTOID, nullable)
