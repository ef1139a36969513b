/*-------------------------------------------------------------------------
 *
 * taskshed.c
 *		Module load: asks for shared memory and sets all hooks.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "utils/inval.h"

#include "hooks/hooks.h"

PG_MODULE_MAGIC;

static shmem_request_hook_type prev_shmem_request_hook = NULL;
static shmem_startup_hook_type prev_shmem_startup_hook = NULL;

extern PGDLLEXPORT void _PG_init(void);

static void
taskshed_shmem_request(void)
{
	if (prev_shmem_request_hook)
		prev_shmem_request_hook();
	shared_request();
}

/* In the postmaster, at its start and after each crash. */
static void
taskshed_shmem_startup(void)
{
	if (prev_shmem_startup_hook)
		prev_shmem_startup_hook();
	if (shared_startup() && !IsBinaryUpgrade)
		crash_record_startup();
}

/* The one of the few places for such callbacks that a process has which is ours. */
static void
relation_changed(Datum arg, Oid relid)
{
	store_relation_changed(relid);
	callback_relation_changed(relid);
	alias_relation_changed(relid);
	history_relation_changed(relid);
	copies_relation_changed(relid);
	replicated_relation_changed(relid);
}

/*
 * Without preload, as in pg_upgrade or a stray LOAD, the library loads and
 * does nothing: whoever calls one of its functions is told by
 * ts_require_preload.
 */
void
_PG_init(void)
{
	if (!process_shared_preload_libraries_in_progress)
		return;

	settings_define();
	prev_shmem_request_hook = shmem_request_hook;
	shmem_request_hook = taskshed_shmem_request;
	prev_shmem_startup_hook = shmem_startup_hook;
	shmem_startup_hook = taskshed_shmem_startup;
	prepared_init();
	notes_init();
	late_from_init();
	max_tasks_init();
	database_hold_init();
	changed_roles_init();
	changed_settings_init();
	callback_init();
	CacheRegisterRelcacheCallback(relation_changed, (Datum) 0);
	commands_init();
	object_access_init();
	view_writes_init();
	if (!IsBinaryUpgrade)
		launcher_register();
}
