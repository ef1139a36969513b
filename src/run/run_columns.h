/*-------------------------------------------------------------------------
 *
 * run_columns.h
 *		The columns of _taskshed.run_0 and so on, in their order.
 *
 * The script creates them like this; the numbers and the shape in history.c are
 * made from this list.  They are only written, so it does not matter which can be
 * null.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */

/* there is deliberately no #ifndef here: who includes it says what RUN_COLUMN is */

/* name, type */
RUN_COLUMN(run_id, INT8OID)
RUN_COLUMN(scheduled_at, TIMESTAMPTZOID)
RUN_COLUMN(started_at, TIMESTAMPTZOID)
RUN_COLUMN(finished_at, TIMESTAMPTZOID)
RUN_COLUMN(owner, OIDOID)
RUN_COLUMN(attempt, INT4OID)
RUN_COLUMN(worker_pid, INT4OID)
RUN_COLUMN(status, TEXTOID)
RUN_COLUMN(task_id, TEXTOID)
RUN_COLUMN(group_id, TEXTOID)
RUN_COLUMN(callback, TEXTOID)
RUN_COLUMN(result, TEXTOID)
RUN_COLUMN(sqlstate, TEXTOID)
RUN_COLUMN(message, TEXTOID)
RUN_COLUMN(detail, TEXTOID)
RUN_COLUMN(hint, TEXTOID)
RUN_COLUMN(context, TEXTOID)
RUN_COLUMN(by_hand, BOOLOID)
