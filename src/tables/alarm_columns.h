/*-------------------------------------------------------------------------
 *
 * alarm_columns.h
 *		The columns of _taskshed.alarm, in their order.
 *
 * The script creates them like this, and nothing else in C says so again: the
 * numbers in rows.h and the shape in store.c are made from this list.  New columns
 * come last, since dumps of older versions are restored.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */

/* there is deliberately no #ifndef here: who includes it says what ALARM_COLUMN is */

/* name, type, can it be null */
ALARM_COLUMN(id, INT8OID, not_null)
ALARM_COLUMN(run_at, TIMESTAMPTZOID, not_null)
ALARM_COLUMN(scheduled_at, TIMESTAMPTZOID, not_null)
ALARM_COLUMN(anchor, TIMESTAMPTZOID, not_null)
ALARM_COLUMN(revision, INT8OID, not_null)
ALARM_COLUMN(run_count, INT8OID, not_null)
ALARM_COLUMN(owner, OIDOID, not_null)
ALARM_COLUMN(attempt, INT4OID, not_null)
ALARM_COLUMN(failures_in_row, INT4OID, not_null)
ALARM_COLUMN(interruptions, INT4OID, not_null)
ALARM_COLUMN(resume_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(paused_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(failed_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(previous_run_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(begun_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(last_run_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(last_status, TEXTOID, nullable)
ALARM_COLUMN(last_sqlstate, TEXTOID, nullable)
ALARM_COLUMN(last_error, TEXTOID, nullable)
ALARM_COLUMN(late_from, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(restarts, INT4OID, nullable)
ALARM_COLUMN(shortage_since, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(close_failures, INT4OID, nullable)
ALARM_COLUMN(asked_at, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(task_tid, TIDOID, nullable)
ALARM_COLUMN(waiting_since, TIMESTAMPTZOID, nullable)
ALARM_COLUMN(follows, BOOLOID, nullable)
ALARM_COLUMN(followed, BOOLOID, nullable)
ALARM_COLUMN(settled_from, INT8OID, nullable)
