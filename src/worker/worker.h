/*-------------------------------------------------------------------------
 *
 * worker.h
 *		The process that runs tasks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_WORKER_WORKER_H
#define TASKSHED_WORKER_WORKER_H

#include "postgres.h"

#include "api/api.h"

/* ------------------------------------------------------------------------
 * stop.c
 */
/* How long (ms) a callback may go on after it was told that its time is up. */
#define STOP_GRACE	5000

typedef enum StopReason
{
	STOP_NONE,
	STOP_CANCEL,				/* cancel_task */
	STOP_TIMEOUT
} StopReason;

extern void stop_init(void);
extern void stop_enable(int64 timeout);
extern void stop_disable(int64 timeout);
extern StopReason stop_get_reason(const ErrorData *error);

/* ------------------------------------------------------------------------
 * session.c
 */
extern void session_start(void);
extern void session_apply_settings(void);
extern void session_reset(bool settings_left);

/* ------------------------------------------------------------------------
 * rehearsal.c
 */
extern void rehearse(int64 id);

/* ------------------------------------------------------------------------
 * run.c
 */
extern void run_init(void);
extern RunStatus run_task(const TsHanded *task, TsReport *report);

/* ------------------------------------------------------------------------
 * worker.c
 */
extern PGDLLEXPORT void ts_worker_main(Datum main_arg);

#endif							/* TASKSHED_WORKER_WORKER_H */
