/*-------------------------------------------------------------------------
 *
 * launcher.h
 *		The process that starts the others.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#ifndef TASKSHED_LAUNCHER_LAUNCHER_H
#define TASKSHED_LAUNCHER_LAUNCHER_H

#include "postgres.h"

#include "scheduler/scheduler.h"

/* ------------------------------------------------------------------------
 * fair_share.c
 */
extern void fair_share_init(void);
extern const SlotView *fair_share_get(int i);
extern void fair_share_look(void);
extern bool fair_share_room_for_worker(Oid database);
extern bool fair_share_room_for_scheduler(void);
extern bool fair_share_make_room(Oid database, Oid role);
extern void fair_share_make_room_for_scheduler(Oid database);
extern void fair_share_complain(void);
extern int	fair_share_choose_asked(const bool *skip);
extern void fair_share_count_scheduler(Oid database);
extern void fair_share_count_worker(int i);
extern void fair_share_drop(int i);
extern void fair_share_set_full(void);
extern void fair_share_start_anew(void);

/* ------------------------------------------------------------------------
 * databases.c
 */
extern void databases_init(void);
extern long databases_probe(void);
extern void databases_clear_closed(void);
extern void databases_stop_clearing(int i);
extern bool databases_may_serve(TsDatabase *db);

/* ------------------------------------------------------------------------
 * launcher.c
 */
extern void launcher_register(void);
extern PGDLLEXPORT void ts_launcher_main(Datum main_arg);

#endif							/* TASKSHED_LAUNCHER_LAUNCHER_H */
