"""Routes of the probe about what is held in memory."""

import gc

from modules import script_callbacks, scripts, shared


def add_routes(demo, app):
    """Called when the host's web application is up."""

    def unload():
        """What the page's button does: free the motion module that is kept."""
        for script in scripts.scripts_txt2img.alwayson_scripts:
            if script.title() == "Motion":
                script.files.unload()

    def offloading():
        return {"offloading": bool(getattr(shared.sd_model, "lowvram", False))}

    def kept():
        gc.collect()
        return {"modules": sum(type(one).__name__ == "MotionModel" for one in gc.get_objects())}

    app.add_api_route("/contract/kept", kept, methods=["GET"])
    app.add_api_route("/contract/unload", unload, methods=["POST"])
    app.add_api_route("/contract/offloading", offloading, methods=["GET"])


script_callbacks.on_app_started(add_routes)
