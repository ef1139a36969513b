/*-------------------------------------------------------------------------
 *
 * object_access.c
 *		What is dropped and created, as the server tells by object_access_hook.
 *
 * Databases come and go, by commands and as parts of others, and so does the
 * extension.  The server calls this hook when it has checked privileges.
 *
 * Copyright (c) 2026, the taskshed developers
 *
 *-------------------------------------------------------------------------
 */
#include "postgres.h"

#include "catalog/objectaccess.h"
#include "catalog/pg_database.h"
#include "catalog/pg_extension.h"
#include "commands/extension.h"

#include "hooks/hooks.h"

static object_access_hook_type prev_object_access_hook = NULL;

/*
 * Keep our processes out of a database that is dropped, and have the launcher look
 * into a new one.  At DROP EXTENSION have the scheduler and the workers find out
 * and leave.
 */
static void
object_access(ObjectAccessType access, Oid class_id, Oid object_id, int sub_id, void *arg)
{
	if (prev_object_access_hook)
		prev_object_access_hook(access, class_id, object_id, sub_id, arg);
	if (ts_shared == NULL)
		return;
	if (access == OAT_DROP && class_id == DatabaseRelationId)
		database_hold_for_drop(object_id);
	else if (access == OAT_POST_CREATE && class_id == DatabaseRelationId)
		database_hold_look_into(object_id);
	else if (access == OAT_DROP && class_id == ExtensionRelationId)
	{
		char	   *name = get_extension_name(object_id);

		if (name != NULL && strcmp(name, "taskshed") == 0)
			notes_reread();
	}
}

/* Set the hook: once, when the library is preloaded. */
void
object_access_init(void)
{
	prev_object_access_hook = object_access_hook;
	object_access_hook = object_access;
}
