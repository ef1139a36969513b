/*-------------------------------------------------------------------------
 *
 * settings.h
 *		The settings of taskshed.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_SHARED_SETTINGS_H
#define TASKSHED_SHARED_SETTINGS_H

#include "postgres.h"

extern bool ts_enabled;
extern int	ts_max_workers;
extern int	ts_tasks_per_commit;
extern int	ts_worker_idle_timeout; /* ms */
extern int	ts_scheduler_idle_timeout;	/* ms */
extern int	ts_synchronous_commit;	/* a SYNCHRONOUS_COMMIT_... */
extern int	ts_log_failures;	/* an elevel, or 0 for off */
extern int	ts_history;			/* a HistoryMode */
extern int	ts_history_retention;	/* minutes */
extern int	ts_failed_retention;	/* minutes; -1: for ever */
extern int	ts_history_max_size;	/* MB */
extern int	ts_history_max_text;	/* bytes */
extern int	ts_pause_after_failures;
extern int	ts_timeout;			/* ms; 0: none */
extern int	ts_max_interruptions;
extern int	ts_max_workers_per_role;	/* 0: no limit */
extern bool ts_allow_superuser_tasks;
extern int	ts_max_tasks_per_role;	/* 0: no limit */
extern char *ts_on_failure;		/* a callback; "": none */
extern char *ts_notify_failures;	/* a channel; "": none */

extern void settings_define(void);
extern void ts_require_preload(void);

#endif							/* TASKSHED_SHARED_SETTINGS_H */
