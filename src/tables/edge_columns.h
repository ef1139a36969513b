/*-------------------------------------------------------------------------
 *
 * edge_columns.h
 *		The columns of _taskshed.edge, in their order.
 *
 * The script creates them like this, and nothing else in C says so again: the
 * numbers in rows.h and the shape in store.c are made from this list.  New columns
 * come last, since dumps of older versions are restored.
 *
 * Those of an end are there twice: of the round that is gathered or has its run,
 * and of the next one.  They are in the same order in both.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */

/* there is deliberately no #ifndef here: who includes it says what EDGE_COLUMN is */

/* name, type, can it be null */
EDGE_COLUMN(child, INT8OID, not_null)
EDGE_COLUMN(parent, INT8OID, not_null)
EDGE_COLUMN(task_id, TEXTOID, not_null)
EDGE_COLUMN(gone, BOOLOID, nullable)
EDGE_COLUMN(done_at, TIMESTAMPTZOID, nullable)
EDGE_COLUMN(run_at, TIMESTAMPTZOID, nullable)
EDGE_COLUMN(status, TEXTOID, nullable)
EDGE_COLUMN(sqlstate, TEXTOID, nullable)
EDGE_COLUMN(message, TEXTOID, nullable)
EDGE_COLUMN(result, TEXTOID, nullable)
EDGE_COLUMN(next_done_at, TIMESTAMPTZOID, nullable)
EDGE_COLUMN(next_run_at, TIMESTAMPTZOID, nullable)
EDGE_COLUMN(next_status, TEXTOID, nullable)
EDGE_COLUMN(next_sqlstate, TEXTOID, nullable)
EDGE_COLUMN(next_message, TEXTOID, nullable)
EDGE_COLUMN(next_result, TEXTOID, nullable)
